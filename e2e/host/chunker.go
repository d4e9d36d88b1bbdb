package host

import (
	"encoding/binary"
	"time"

	"github.com/tinylib/msgp/msgp"
)

// ChunkSize is where Fluent Bit closes a chunk: the first record that reaches it is the chunk's last.
const ChunkSize = 2_048_000

// Format is how a record is laid out.
type Format int

const (
	// V2 is [[time, {metadata}], {body}], Fluent Bit's own since 2.1.
	V2 Format = iota
	// Legacy is [time, {body}], what older forwarders send.
	Legacy
)

// AppendRecord appends a record to a chunk. The body is a MessagePack map. The time is Fluent Bit's EventTime, which holds
// 32 bits of seconds: earlier than 1970 and later than 2106 wrap round, there as here.
func AppendRecord(b []byte, format Format, t time.Time, body []byte) []byte {
	b = msgp.AppendArrayHeader(b, 2)
	if format == V2 {
		b = msgp.AppendArrayHeader(b, 2)
	}
	b = append(b, 0xd7, 0x00) // fixext 8, type 0
	b = binary.BigEndian.AppendUint32(b, uint32(t.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
	if format == V2 {
		b = msgp.AppendMapHeader(b, 0)
	}
	return append(b, body...)
}

// Chunker gathers records into chunks as Fluent Bit's inputs do: each of one tag, closed at ChunkSize or on Flush.
type Chunker struct {
	// Emit gets each chunk; the bytes are the Chunker's again when it returns. (*Host).Send fits.
	Emit   func(tag string, chunk []byte) error
	Format Format
	// Size overrides ChunkSize.
	Size int

	open  map[string]*[]byte
	order []string
	spare [][]byte
}

// Append adds a record, and emits its chunk when that is full.
func (c *Chunker) Append(tag string, t time.Time, body []byte) error {
	chunk := c.open[tag]
	if chunk == nil {
		if c.open == nil {
			c.open = map[string]*[]byte{}
		}
		chunk = new([]byte)
		if n := len(c.spare); n > 0 {
			*chunk, c.spare = c.spare[n-1][:0], c.spare[:n-1]
		}
		c.open[tag] = chunk
		c.order = append(c.order, tag)
	}
	first := len(*chunk) == 0
	*chunk = AppendRecord(*chunk, c.Format, t, body)
	size := c.Size
	if size == 0 {
		size = ChunkSize
	}
	if len(*chunk) < size {
		return nil
	}
	err := c.Emit(tag, *chunk)
	if *chunk = (*chunk)[:0]; first {
		*chunk = nil // one huge record should not leave a huge buffer behind
	}
	return err
}

// Flush emits what is gathered, in the order in which the tags were first seen since the last Flush.
func (c *Chunker) Flush() error {
	for len(c.order) > 0 {
		tag := c.order[0]
		c.order = c.order[1:]
		chunk := *c.open[tag]
		delete(c.open, tag)
		if len(chunk) == 0 {
			continue
		}
		if err := c.Emit(tag, chunk); err != nil {
			return err
		}
		if len(c.spare) < 16 {
			c.spare = append(c.spare, chunk)
		}
	}
	return nil
}
