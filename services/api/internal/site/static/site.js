// The pages' script. Every page works without it. It adds completion, older posts while scrolling,
// new posts as they come, keyboard shortcuts, and responses below the forms of the API page.
'use strict'
const { root, stream } = document.body.dataset
const list = document.getElementById('posts')
const byId = id => document.getElementById(id)
const cards = from => [...(from || list).querySelectorAll('article.card')]
const make = (tag, className, text = '') => Object.assign(document.createElement(tag), { className, textContent: text })

// Times: how long ago, updated every minute, and in full in the reader's time zone.
function short(at) {
  const s = Math.max(0, (Date.now() - at) / 1000)
  if (s < 60) return Math.floor(s) + 's'
  if (s < 3600) return Math.floor(s / 60) + 'm'
  if (s < 86400) return Math.floor(s / 3600) + 'h'
  if (s < 7 * 86400) return Math.floor(s / 86400) + 'd'
  return ''
}
function tellTimes(within = document) {
  for (const time of within.querySelectorAll('time')) {
    const at = new Date(time.dateTime)
    time.title = at.toLocaleString(undefined, { dateStyle: 'full', timeStyle: 'medium' })
    if (time.closest('.when')) time.textContent = short(at) || time.textContent
  }
}

// Fetches a page and makes its links absolute, since its path may have another depth.
async function read(url) {
  const answer = await fetch(url, { headers: { Accept: 'text/html' } })
  if (!answer.ok) throw Object.assign(new Error(`${answer.status} for ${url}`), { status: answer.status })
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html')
  for (const name of ['href', 'src', 'data-page']) {
    for (const e of page.querySelectorAll(`main [${name}]`)) e.setAttribute(name, new URL(e.getAttribute(name), answer.url))
  }
  tellTimes(page)
  return page
}

// Completion, with each tag's number of posts.
let completing
function complete({ target }) {
  const [, head, word] = target.value.match(/^(.*?(?:^|[\s,])[#+-]*)([^\s,]*)$/s) || []
  clearTimeout(completing)
  if (!word) return
  completing = setTimeout(async () => {
    const answer = await fetch(`${root}v1/tags?prefix=${encodeURIComponent(word)}`)
    if (!answer.ok) return
    const { tags } = await answer.json()
    byId('tags').replaceChildren(...tags.filter(({ tag }) => !/[\s,]/.test(tag)).map(({ tag, posts }) =>
      Object.assign(document.createElement('option'), { value: head + tag, label: `${tag} · ${posts.toLocaleString()}` })))
  }, 120)
}

// Older posts while scrolling. The link to the next page stays.
const autoPages = 20, ahead = 600 // pixels below the screen
let loaded = 0, loading = false
async function loadOlder() {
  const link = byId('older')
  if (!link || loading || loaded >= autoPages) return
  loading = true
  const wait = [1, 2, 3].map(() => make('div', 'card skeleton'))
  for (const w of wait) w.ariaHidden = 'true'
  list.append(...wait)
  try {
    const page = await read(link.href)
    list.append(...cards(page).filter(c => !byId(c.id)))
    const next = page.getElementById('older')
    if (next) link.href = next.href
    else link.parentElement.replaceWith(make('p', 'end', 'No more posts.'))
    loaded++
  } catch { loaded = autoPages } // the link is still there
  for (const w of wait) w.remove()
  loading = false
  nearEnd()
}
// Not an IntersectionObserver: it does not fire if no frame is drawn between two appended pages.
const nearEnd = () => byId('older')?.getBoundingClientRect().top < innerHeight + ahead && loadOlder()

// New posts, live. Changes are applied one after the other.
const auto = list && list.dataset.auto !== undefined // shows new posts immediately
const maxWaiting = 999
const waiting = new Set()
let paused = false, work = Promise.resolve()
const then = f => { work = work.then(f).catch(() => {}) } // the next sync repairs failures

const notice = make('div', 'notice')
notice.setAttribute('role', 'status')
function tellNew() {
  const n = waiting.size
  document.title = document.title.replace(/^\(\d+\+?\) /, '')
  if (auto) return
  if (!n) return notice.replaceChildren()
  const button = notice.querySelector('button') || make('button', 'new')
  button.textContent = n === 1 ? '1 new post' : `${n < maxWaiting ? n : n + '+'} new posts`
  button.onclick = showNew
  if (!button.parentElement) notice.replaceChildren(button)
  document.title = `(${n < maxWaiting ? n : n + '+'}) ${document.title}`
}
function showNew() {
  if (!waiting.size) return
  then(async () => {
    await sync(true)
    scrollTo({ top: 0 })
    cards()[0]?.focus({ preventScroll: true })
  })
}

function insert(card) {
  if (byId(card.id)) return byId(card.id).replaceWith(card)
  const older = cards().find(c => c.dataset.at < card.dataset.at)
  if (older) older.before(card)
  else list.append(card)
  card.classList.add('fresh-in')
}

// sync updates the shown posts from the list's newest page. Newer posts wait unless newer is true.
// With every, unchanged posts are replaced, too.
async function sync(newer, every) {
  const page = await read(location.href).catch(problem => {
    if (problem.status === 404) list.replaceChildren() // a tag that is no longer shown
    throw problem
  })
  const now = cards(page), top = cards()[0]?.dataset.at || ''
  const end = page.getElementById('older') ? now.at(-1)?.dataset.at || '' : ''
  if (newer && now.length && !now.some(c => byId(c.id))) { // too many new posts to merge
    list.replaceChildren(...now)
    const link = byId('older'), next = page.getElementById('older')
    if (link && next) link.href = next.href
  } else {
    const ids = new Set(now.map(c => c.id))
    for (const c of cards()) if (c.dataset.at >= end && !ids.has(c.id)) c.remove()
    for (const c of now.reverse()) {
      const here = byId(c.id)
      if (here ? every || here.dataset.cid !== c.dataset.cid : newer || c.dataset.at <= top) insert(c)
      else if (!here) waiting.add(c.id)
    }
  }
  if (newer) waiting.clear()
  if (auto) for (const c of cards().slice(60)) c.remove()
  document.querySelector('.nothing')?.remove()
  tellNew()
}

let soon
function syncSoon() {
  clearTimeout(soon)
  soon = setTimeout(() => { if (!paused) then(() => sync(true)) }, 1500)
}

async function changed(post) {
  const all = cards(), here = byId(post.uri)
  if (!here && (!all.length || post.sortAt > all[0].dataset.at)) {
    if (waiting.size < maxWaiting) waiting.add(post.uri)
    if (auto) syncSoon()
    return tellNew()
  }
  if (!here && byId('older') && post.sortAt < all.at(-1).dataset.at) return // not on screen yet
  const page = await read(`${root}post/${encodeURIComponent(post.did)}/${encodeURIComponent(post.rkey)}`)
  for (const c of cards(page)) insert(c)
}

function removed(uri) {
  const card = byId(uri)
  if (card?.contains(document.activeElement)) (card.nextElementSibling || card.previousElementSibling)?.focus()
  card?.remove()
  for (const q of list.querySelectorAll('.quote')) {
    if (q.dataset.post === uri) q.replaceChildren(Object.assign(q.querySelector('a'), { textContent: 'Quoted post' }))
  }
  waiting.delete(uri)
  tellNew()
}

function follow() {
  list.before(notice)
  const events = new EventSource(`${root}v1/stream?${stream}`)
  let known = false
  // From now on no change is missed; sync adds the changes since the page was loaded.
  events.onopen = () => { if (!known) then(() => sync(auto)); known = true; document.body.dataset.live = '' }
  events.addEventListener('upsert', e => then(() => changed(JSON.parse(e.data).post)))
  events.addEventListener('remove', e => then(() => removed(JSON.parse(e.data).uri)))
  // A reset may be due to settings, such as denied tags or accounts, that affect every card.
  events.addEventListener('reset', () => then(() => sync(auto, true)))
  addEventListener('pagehide', () => events.close(), { once: true })
}

// A page that the back button restores from the cache: the forms are reset to match the URL.
function restored({ persisted }) {
  if (!persisted) return
  for (const form of document.forms) form.reset()
  if (list && stream !== undefined) follow()
}

// Keys: j and k move, o opens a post, . shows new posts, / searches, space pauses a wall.
function pressed(e) {
  if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest('input, select, textarea')) return
  const all = list ? cards() : []
  const at = all.indexOf(document.activeElement?.closest('.card'))
  const first = () => Math.max(0, all.findIndex(c => c.getBoundingClientRect().bottom > 60))
  switch (e.key) {
    case 'j': all[at < 0 ? first() : at + 1]?.focus(); break
    case 'k': all[at < 0 ? first() : at - 1]?.focus(); break
    case 'o': if (at >= 0) open(all[at].querySelector('.out').href, '_blank', 'noopener'); break
    case '.': showNew(); break
    case '/': (byId('q') || document.querySelector('input[name=q]'))?.focus(); break
    case ' ': if (!byId('pause') || e.target.closest('a, button, summary')) return; pause(); break
    default: return
  }
  e.preventDefault()
}

function pause() {
  paused = !paused
  byId('pause').textContent = paused ? 'Continue' : 'Pause'
  byId('pause').ariaPressed = String(paused)
  if (!paused) then(() => sync(true))
}

// The API page shows the response below the form; of a stream or a long response only the beginning.
const maxShown = 20000, showFor = 4000
async function tryOut(e) {
  e.preventDefault()
  const form = e.target, out = form.querySelector('output')
  let path = form.dataset.path
  const query = new URLSearchParams()
  for (const [name, value] of new FormData(form)) {
    if (name === 'route' || !value) continue
    if (path.includes(`{${name}}`)) path = path.replace(`{${name}}`, encodeURIComponent(value))
    else query.append(name, value)
  }
  const url = root + path + (query.size ? '?' + query : '')
  out.replaceChildren(make('p', 'asked', 'GET ' + new URL(url, location).href), make('pre', '', '…'))
  const shown = out.querySelector('pre')
  shown.tabIndex = 0
  const stop = new AbortController()
  const timer = setTimeout(() => stop.abort(), showFor)
  let text = ''
  try {
    const answer = await fetch(url, { headers: { Accept: 'application/json, */*;q=0.1' }, signal: stop.signal })
    out.firstChild.textContent += ` → ${answer.status}`
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
    for (let part; text.length < 1e6 && !(part = await reader.read()).done;) shown.textContent = text += part.value
  } catch (problem) { if (problem.name !== 'AbortError') text += problem }
  clearTimeout(timer)
  try { text = JSON.stringify(JSON.parse(text), null, 2) } catch { /* not JSON, or not all of it */ }
  shown.textContent = text.length > maxShown ? text.slice(0, maxShown) + '\n…' : text
}

tellTimes()
setInterval(tellTimes, 60000)
document.addEventListener('input', e => { if (e.target.getAttribute('list') === 'tags') complete(e) })
document.addEventListener('keydown', pressed)
for (const form of document.querySelectorAll('form.try')) form.addEventListener('submit', tryOut)
if (byId('pause')) byId('pause').onclick = pause
if (list && stream !== undefined) follow()
addEventListener('pageshow', restored)
if (list) addEventListener('scroll', nearEnd, { passive: true }), nearEnd()
