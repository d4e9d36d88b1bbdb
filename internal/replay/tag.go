package replay

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// A copied event says in `_tenantlogs.replay` which replay brought it, and which event of
// quarantine it is: `<id>/<tag>`. The tag is made from the event's stream, both its times
// and its message with the journal's key, which stays in the quarantine group. So nobody
// who writes to the tenant's group can make the tag of an event that has not arrived and
// have it taken for arrived. GetLogEvents gives events no id, and a mere number would
// move when older events expire.
const (
	idLength  = 26 // 128 random bits in base32
	tagLength = 26 // 128 bits of the hash
	keyLength = 52 // 256 random bits
)

var lowerBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// randomText is n characters of base32.
func randomText(random io.Reader, n int) (string, error) {
	b := make([]byte, (n*5+7)/8)
	if _, err := io.ReadFull(random, b); err != nil {
		return "", fmt.Errorf("failed to make an id: %w", err)
	}
	return lowerBase32.EncodeToString(b)[:n], nil
}

// identity is an event of quarantine: two that are the same in all of it have the same.
type identity [sha256.Size]byte

func identify(key, stream string, e event) (id identity) {
	h := hmac.New(sha256.New, []byte(key))
	var b [24]byte
	binary.BigEndian.PutUint64(b[:], uint64(len(stream)))
	binary.BigEndian.PutUint64(b[8:], uint64(e.timestamp))
	binary.BigEndian.PutUint64(b[16:], uint64(e.ingested))
	h.Write(b[:])
	h.Write([]byte(stream))
	h.Write([]byte(e.message))
	h.Sum(id[:0])
	return id
}

// tag names one event that is sent: the nth (from 1) of those with the same identity, and
// the part of it.
func (id identity) tag(key string, nth, part int) string {
	h := hmac.New(sha256.New, []byte(key))
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(nth))
	binary.BigEndian.PutUint64(b[8:], uint64(part))
	h.Write(b[:])
	h.Write(id[:])
	return lowerBase32.EncodeToString(h.Sum(nil))[:tagLength]
}

// tagPattern finds tags in a message, also where it was put in an envelope once more and
// its quotes are escaped.
var tagPattern = regexp.MustCompile(fmt.Sprintf(`replay[\\":]{3,9}[a-z2-7]{%d}/([a-z2-7]{%d})`, idLength, tagLength))

// tags calls each with every tag in a message.
func tags(message string, each func(string)) {
	if !strings.Contains(message, "replay") {
		return
	}
	for _, m := range tagPattern.FindAllStringSubmatch(message, -1) {
		each(m[1])
	}
}
