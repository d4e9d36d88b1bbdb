package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
)

// ceiling is what the stand-in takes from a client that does nothing but send bodies made
// beforehand: signed, over HTTPS, without latency, eight calls at once, for a while.
type ceiling struct {
	Body            string // gzip or none
	EventsPerSecond float64
	MBPerSecond     float64 // of messages
}

const (
	ceilingCalls = 8
	ceilingTime  = 3 * time.Second
	bodyEvents   = 4000
)

func (b *bench) ceiling(ctx context.Context, compress bool) (ceiling, error) {
	c := ceiling{Body: "none"}
	cw, s, err := node.StartStandIn(b.dir, fakeaws.Config{})
	if err != nil {
		return c, err
	}
	defer func() { _ = s.Close() }()
	for _, kv := range cw.Env() {
		if k, v, _ := strings.Cut(kv, "="); v != "" || k == "AWS_SESSION_TOKEN" {
			if err := os.Setenv(k, v); err != nil {
				return c, err
			}
		}
	}
	client, err := awsclient.New(ctx, awsclient.Config{Region: cw.Region, Endpoint: cw.Endpoint, MaxConns: ceilingCalls})
	if err != nil {
		return c, err
	}
	keeper := loggroup.NewKeeper(client, loggroup.Config{Create: true, Log: quiet})
	defer keeper.Close()
	type event struct {
		Timestamp int64  `json:"timestamp"`
		Message   string `json:"message"`
	}
	bodies, size := make([]awsclient.Body, ceilingCalls), 0
	streams := make([]string, ceilingCalls)
	for n := range bodies {
		streams[n] = fmt.Sprint("s", n)
		if err := keeper.EnsureStream(ctx, loggroup.Spec{Group: "/ceiling", RetentionDays: 365}, streams[n]); err != nil {
			return c, err
		}
		l := newLines(uint64(n))
		events := make([]event, bodyEvents)
		size = 0
		for i := range events {
			text, err := json.Marshal(map[string]any{"log": l.next(i), "stream": "stdout"})
			if err != nil {
				return c, err
			}
			events[i] = event{time.Now().UnixMilli(), string(text)}
			size += len(text)
		}
		text, err := json.Marshal(map[string]any{"logGroupName": "/ceiling", "logStreamName": streams[n], "logEvents": events})
		if err != nil {
			return c, err
		}
		bodies[n].Bytes = text
		if compress {
			c.Body = "gzip"
			var z bytes.Buffer
			w, err := gzip.NewWriterLevel(&z, gzip.BestSpeed)
			if err != nil {
				return c, err
			}
			if _, err := w.Write(text); err != nil {
				return c, err
			}
			if err := w.Close(); err != nil {
				return c, err
			}
			bodies[n] = awsclient.Body{Bytes: z.Bytes(), Gzip: true}
		}
	}
	var calls atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	began := time.Now()
	for n := range bodies {
		wg.Go(func() {
			for time.Since(began) < ceilingTime {
				if _, err := client.Put(ctx, "/ceiling", streams[n], bodies[n], bodyEvents); err != nil {
					failed.Store(&err)
					return
				}
				calls.Add(1)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return c, *err
	}
	seconds := time.Since(began).Seconds()
	c.EventsPerSecond = float64(calls.Load()*bodyEvents) / seconds
	c.MBPerSecond = float64(calls.Load()) * float64(size) / (1 << 20) / seconds
	return c, nil
}
