package main

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every export defers recovered: a panic becomes a line and the answer that loses nothing.
func TestAPanicBecomesALineAndAnAnswer(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	export := func(l *slog.Logger, v any) (code int) {
		code = flbOK
		defer recovered("FLBPluginFlushCtx", l, func() { code = flbRetry })
		if v != nil {
			panic(v)
		}
		return code
	}
	require.Equal(t, flbOK, export(logger, nil))
	require.Empty(t, log.String())
	require.Equal(t, flbRetry, export(logger, errors.New("index out of range")))
	require.Contains(t, log.String(), "panic in FLBPluginFlushCtx: index out of range")
	log.Reset()
	// What is no error may be a record's content: only its type is told.
	require.Equal(t, flbRetry, export(logger, "a line of a tenant"))
	require.Contains(t, log.String(), "panic in FLBPluginFlushCtx: string")
	require.NotContains(t, log.String(), "a line of a tenant")
	require.Equal(t, flbRetry, export(nil, "x"))
}
