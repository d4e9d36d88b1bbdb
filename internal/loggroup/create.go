package loggroup

import (
	"context"
	"fmt"
	"maps"
	"runtime/debug"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	smithytime "github.com/aws/smithy-go/time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
)

// createTimeout bounds the creation of a group and its stream. It is apart from the
// flush's own time, because several flushes wait for the same creation.
const createTimeout = 30 * time.Second

// EnsureStream makes the stream exist, and its group where that is missing too.
// Many callers asking for the same group at once make one set of calls.
func (k *Keeper) EnsureStream(ctx context.Context, spec Spec, stream string) error {
	result := make(chan error, 1)
	k.calls.Go(func() {
		// ':' can be in neither a group's name nor a stream's, so the key is unambiguous.
		result <- k.once(spec.Group+":"+stream, func(ctx context.Context) error { return k.ensureStream(ctx, spec, stream) })
	})
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// once runs f once for all who ask for the same key meanwhile. A panic in it is an
// error for all of them: the process is Fluent Bit's, and others' logs pass through it.
func (k *Keeper) once(key string, f func(context.Context) error) error {
	_, err, _ := k.flight.Do(key, func() (_ any, err error) {
		ctx, cancel := context.WithTimeout(k.ctx, createTimeout)
		defer cancel()
		defer recovered(&err)
		return nil, f(ctx)
	})
	return err
}

func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("panicked, please report this: %v\n%s", r, debug.Stack())
	}
}

func (k *Keeper) ensureStream(ctx context.Context, spec Spec, stream string) error {
	before, _ := k.created.Get(spec.Group)
	err := k.createStream(ctx, spec.Group, stream)
	if awsclient.Classify(err) != awsclient.ClassNotFound {
		return err
	}
	if !k.cfg.Create {
		return &MissingError{spec.Group}
	}
	err = k.once(spec.Group, func(ctx context.Context) error {
		// Another stream's caller may have created it since ours was refused.
		if n, _ := k.created.Get(spec.Group); n != before {
			return nil
		}
		err := k.createGroup(ctx, spec)
		if err == nil {
			k.created.Add(spec.Group, before+1)
		}
		return err
	})
	if err != nil {
		return err
	}
	// A group that was created a moment ago may not be seen by every host of AWS yet.
	for n := 1; ; n++ {
		err = k.createStream(ctx, spec.Group, stream)
		if awsclient.Classify(err) != awsclient.ClassNotFound || n == 6 {
			return err
		}
		if err := smithytime.SleepWithContext(ctx, time.Duration(n*n)*50*time.Millisecond); err != nil {
			return err
		}
	}
}

// createStream makes one call, which the SDK repeats a few times only: it would hold its
// flush, and with it a worker of Fluent Bit and the chunks of others, for half a minute.
func (k *Keeper) createStream(ctx context.Context, group, stream string) error {
	began := time.Now()
	if err := k.streams.resting(began); err != nil {
		return fmt.Errorf("failed to create stream %s of group %s: %w", stream, group, err)
	}
	_, err := k.api.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &group, LogStreamName: &stream}, awsclient.FewAttempts)
	c := awsclient.Classify(err)
	k.streams.answered(c, began, time.Now())
	if c == awsclient.ClassNone || c == awsclient.ClassExists {
		return nil
	}
	return fmt.Errorf("failed to create stream %s of group %s: %w", stream, group, err)
}

// createGroup creates the group in state new and hands its retention to the
// background, which does not hold up the events that wait for the group.
func (k *Keeper) createGroup(ctx context.Context, spec Spec) error {
	in := &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &spec.Group, Tags: maps.Clone(spec.Tags)}
	if in.Tags == nil {
		in.Tags = map[string]string{}
	}
	in.Tags[TagState] = StateNew
	if spec.Tenant != "" {
		in.Tags[TagTenant] = spec.Tenant
	}
	if spec.KMSKeyID != "" {
		in.KmsKeyId = &spec.KMSKeyID
	}
	if spec.Class != "" {
		in.LogGroupClass = types.LogGroupClass(spec.Class)
	}
	if spec.DeletionProtection {
		in.DeletionProtectionEnabled = &spec.DeletionProtection
	}
	w := work{spec: spec, created: true, due: time.Now()}
	_, err := k.api.CreateLogGroup(ctx, in)
	switch awsclient.Classify(err) {
	case awsclient.ClassNone:
		k.cfg.Log.Info("created log group", "group", spec.Group, "tenant", spec.Tenant)
	case awsclient.ClassExists, awsclient.ClassConflict:
		// Another node is at it, and its retention with it. Both answers mean "look
		// again", all the others' nodes not at the same moment.
		w.created, w.due = false, k.nextLook(w.due)
	default:
		return fmt.Errorf("failed to create group %s: %w", spec.Group, err)
	}
	k.checked.Add(spec.Group, spec.RetentionDays)
	k.enqueue(w)
	return nil
}
