package delivery

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/folder"
)

// The file of a ledger: the header, entries, and the SHA-256 of all before it.
//
//	header  8 bytes
//	whose   the SHA-256 of what says where this output writes
//	entry   key (32 bytes), cuts (8 bytes), number of events (4 bytes), both little
//	        endian, and one bit for each event, set where CloudWatch accepted it
const (
	stateHeader = "TLLEDG03"
	stateEntry  = sha256.Size + 8 + 4
)

const (
	// maxStateBytes bounds what is read: a ledger of 4,096 chunks of 100,000 events.
	maxStateBytes = 64 << 20
	// maxStateEvents bounds the events of a chunk. Fluent Bit's are of 2 MB, with seldom
	// less than 20 bytes a record.
	maxStateEvents = 1 << 22
)

// Save writes what was accepted of chunks that were not delivered whole, for Load of
// the next process. whose says where this output writes: what one output delivered,
// another has not. Call it after Close. A file that is there is replaced; with nothing
// to remember it is removed.
func (d *Deliverer) Save(path, whose string) (chunks int, err error) {
	data, chunks := d.ledger.encode(whose)
	if chunks == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
		return 0, nil
	}
	err = folder.Replace(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	return chunks, err
}

// Restore reads what Save wrote, and removes the file: it tells of the moment it was
// written, and a process that ends without Save must not leave it to the next one.
// Call it before the first Deliver. A file that is missing is no error.
func (d *Deliverer) Restore(path, whose string) (chunks int, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, err
	case info.Size() > maxStateBytes:
		return 0, fmt.Errorf("%s has %d bytes, more than any ledger", path, info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	if err := os.Remove(path); err != nil {
		return 0, err
	}
	return d.ledger.decode(data, whose, d)
}

// encode writes the entries of which something was accepted.
func (l *ledger) encode(whose string) (data []byte, chunks int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	data = append(data, stateHeader...)
	owner := sha256.Sum256([]byte(whose))
	data = append(data, owner[:]...)
	for _, key := range l.entries.Keys() {
		list, _ := l.entries.Peek(key)
		for _, p := range list {
			if bits, some := p.bits(); some {
				data = append(data, key[:]...)
				data = binary.LittleEndian.AppendUint64(data, p.cuts)
				data = binary.LittleEndian.AppendUint32(data, uint32(len(p.state)))
				data = append(data, bits...)
				chunks++
			}
		}
	}
	sum := sha256.Sum256(data)
	return append(data, sum[:]...), chunks
}

// bits tells which events were accepted, and whether any was.
func (p *progress) bits() (bits []byte, some bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	bits = make([]byte, (len(p.state)+7)/8)
	for i, st := range p.state {
		if st == accepted {
			bits[i/8] |= 1 << (i % 8)
			some = true
		}
	}
	return bits, some
}

var errState = errors.New("it is not a ledger, or damaged; events it would have kept from arriving twice may")

var errOthers = errors.New("it is the ledger of an output that wrote elsewhere; what this one delivered before may arrive twice")

func (l *ledger) decode(data []byte, whose string, d *Deliverer) (chunks int, err error) {
	const head = len(stateHeader) + sha256.Size
	body := len(data) - sha256.Size
	if body < head || string(data[:len(stateHeader)]) != stateHeader {
		return 0, errState
	}
	if sum := sha256.Sum256(data[:body]); !bytes.Equal(sum[:], data[body:]) {
		return 0, errState
	}
	if owner := sha256.Sum256([]byte(whose)); !bytes.Equal(owner[:], data[len(stateHeader):head]) {
		return 0, errOthers
	}
	now := d.cfg.Now()
	for rest := data[head:body]; len(rest) > 0; {
		if len(rest) < stateEntry {
			return chunks, errState
		}
		var key Key
		copy(key[:], rest)
		n := int(binary.LittleEndian.Uint32(rest[sha256.Size+8:]))
		size := (n + 7) / 8
		if n > maxStateEvents || len(rest)-stateEntry < size {
			return chunks, errState
		}
		bits := rest[stateEntry : stateEntry+size]
		p := newProgress(n)
		p.since = now
		p.cuts = binary.LittleEndian.Uint64(rest[sha256.Size:])
		for i := range n {
			if bits[i/8]&(1<<(i%8)) != 0 {
				p.move(int32(i), accepted)
			}
		}
		l.put(key, p)
		chunks++
		rest = rest[stateEntry+size:]
	}
	return chunks, nil
}
