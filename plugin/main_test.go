package main

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"

	flb "github.com/fluent/fluent-bit-go/output"
	"github.com/stretchr/testify/require"
)

// Every export defers recovered: a panic becomes a line and the answer that loses nothing.
func TestAPanicBecomesALineAndAnAnswer(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	export := func(l *slog.Logger, v any) (code int) {
		code = flb.FLB_OK
		defer recovered("FLBPluginFlushCtx", l, func() { code = flb.FLB_RETRY })
		if v != nil {
			panic(v)
		}
		return code
	}
	require.Equal(t, flb.FLB_OK, export(logger, nil))
	require.Empty(t, log.String())
	require.Equal(t, flb.FLB_RETRY, export(logger, errors.New("index out of range")))
	require.Contains(t, log.String(), "panic in FLBPluginFlushCtx: index out of range")
	log.Reset()
	// What is no error may be a record's content: only its type is told.
	require.Equal(t, flb.FLB_RETRY, export(logger, "a line of a tenant"))
	require.Contains(t, log.String(), "panic in FLBPluginFlushCtx: string")
	require.NotContains(t, log.String(), "a line of a tenant")
	require.Equal(t, flb.FLB_RETRY, export(nil, "x"))
}
