// A website shows a list with one line:
// <script src="https://…/embed.js" data-query="tags=art" async></script>
// data-theme, data-accent, data-size and data-height are optional.
'use strict';
(script => {
  const { query = '', theme, accent, size, height = '600' } = script.dataset
  const url = new URL('embed', script.src)
  url.search = query
  for (const [name, value] of Object.entries({ theme, accent, size })) if (value) url.searchParams.set(name, value)
  const frame = document.createElement('iframe')
  Object.assign(frame, { src: url, title: 'Posts on Bluesky', loading: 'lazy', width: '100%', height, frameBorder: '0' })
  script.after(frame)
})(document.currentScript)
