package obs_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/obs"
)

func TestNewLogger(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		format, level string
		want          []string
		err           string
	}{
		{format: "text", level: "debug", want: []string{"msg=d", "msg=i", "msg=w", "msg=e"}},
		{format: "text", level: "info", want: []string{"msg=i", "msg=w", "msg=e"}},
		{format: "json", level: "warn", want: []string{`"msg":"w"`, `"msg":"e"`}},
		{format: "json", level: "error", want: []string{`"msg":"e"`}},
		{format: "text", level: "loud", err: `log level "loud" is not debug, info, warn or error`},
		{format: "text", level: "info+2", err: "log level"},
		{format: "text", level: "", err: "log level"},
		{format: "xml", level: "info", err: `log format "xml" is not text or json`},
	} {
		var out bytes.Buffer
		logger, err := obs.NewLogger(&out, c.format, c.level)
		if c.err != "" {
			require.ErrorContains(t, err, c.err)
			continue
		}
		require.NoError(t, err)
		logger.Debug("d")
		logger.Info("i")
		logger.Warn("w")
		logger.Error("e")
		require.Equal(t, len(c.want), bytes.Count(out.Bytes(), []byte("\n")))
		for _, w := range c.want {
			require.Contains(t, out.String(), w)
		}
	}
}
