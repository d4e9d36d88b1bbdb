package chunk

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"unicode/utf8"
)

const hex = "0123456789abcdef"

const (
	each01 = 0x0101010101010101
	each80 = 0x8080808080808080
)

// special marks, by their highest bits, those of eight bytes that need a look: control
// characters, quotes, backslashes, what is outside ASCII. The first that is marked is one,
// and none before it; above it marks may be wrong, for a borrow runs upwards.
func special(x uint64) uint64 {
	quote := x ^ (each01 * '"')
	slash := x ^ (each01 * '\\')
	return ((x - each01*0x20) | (quote - each01) | (slash - each01) | x) & each80
}

// appendEscaped appends s as the inside of a JSON string, without the quotes.
// Bytes that are no UTF-8 become U+FFFD; replaced says that there were some.
// CloudWatch takes nothing but UTF-8 (PutLogEvents is JSON 1.1).
func appendEscaped(dst, s []byte) (out []byte, replaced bool) {
	i := 0
	for len(s)-i >= 8 {
		n := len(dst)
		if cap(dst)-n < 8 {
			dst = slices.Grow(dst, len(s)-i+len(s)/8+8)
		}
		// Eight bytes are copied whatever they are; those behind the first that needs a
		// look are written over.
		x := binary.LittleEndian.Uint64(s[i:])
		binary.LittleEndian.PutUint64(dst[n:n+8], x)
		found := special(x)
		if found == 0 {
			dst = dst[:n+8]
			i += 8
			continue
		}
		k := bits.TrailingZeros64(found) / 8
		dst = dst[:n+k]
		i += k
		if c := s[i]; c < utf8.RuneSelf {
			dst = appendEscapedByte(dst, c)
			i++
			continue
		}
		var bad bool
		dst, i, bad = appendRunes(dst, s, i)
		replaced = replaced || bad
	}
	for i < len(s) {
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			var bad bool
			dst, i, bad = appendRunes(dst, s, i)
			replaced = replaced || bad
			continue
		case c < 0x20 || c == '"' || c == '\\':
			dst = appendEscapedByte(dst, c)
		default:
			dst = append(dst, c)
		}
		i++
	}
	return dst, replaced
}

// appendRunes appends what is outside ASCII, from s[i] to the next that is not.
func appendRunes(dst, s []byte, i int) (out []byte, end int, replaced bool) {
	start := i
	for i < len(s) && s[i] >= utf8.RuneSelf {
		r, size := utf8.DecodeRune(s[i:])
		if r == utf8.RuneError && size <= 1 {
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\ufffd"...)
			replaced = true
			start = i + 1
		}
		i += size
	}
	return append(dst, s[start:i]...), i, replaced
}

func appendEscapedByte(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
}

// AppendString appends s as a JSON string with its quotes; bytes that are no
// UTF-8 become U+FFFD. delivery writes request bodies with it, so that a message
// is escaped by the same rules wherever it is written.
func AppendString(dst, s []byte) []byte {
	dst = append(dst, '"')
	dst, _ = appendEscaped(dst, s)
	return append(dst, '"')
}

// escapedLen is the length of one character of s[i:] once escaped, and its size.
func escapedLen(s []byte, i int) (escaped, size int) {
	switch c := s[i]; {
	case c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t':
		return 2, 1
	case c < 0x20:
		return 6, 1
	case c < utf8.RuneSelf:
		return 1, 1
	}
	r, size := utf8.DecodeRune(s[i:])
	if r == utf8.RuneError && size <= 1 {
		return len("\ufffd"), 1
	}
	return size, size
}

// mayBeEMF reports whether CloudWatch could read a raw message as embedded
// metric format: a JSON object with a top-level key `_aws`. Only a well-formed
// look at the keys says no; in doubt the answer is yes, because the price of a
// wrong yes is an envelope and of a wrong no a tenant's metrics in the
// platform's account.
func mayBeEMF(s []byte) bool {
	i := skipSpace(s, 0)
	if i >= len(s) || s[i] != '{' {
		return false
	}
	// The key can only be there literally, or with an escape for one of its letters.
	if !bytes.Contains(s, []byte("_aws")) && !bytes.Contains(s, []byte(`\u`)) {
		return false
	}
	i++
	depth := 1
	for i < len(s) {
		switch s[i] {
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
			if depth == 0 {
				// A second object behind the first is looked at as well: a reader
				// that takes JSON lines would see it.
				i = skipSpace(s, i)
				if i >= len(s) {
					return false
				}
				if s[i] != '{' {
					return bytes.Contains(s[i:], []byte("_aws"))
				}
				depth = 1
				i++
			}
		case '"':
			end, isAWS, ok := scanString(s, i)
			if !ok {
				return true
			}
			i = end
			if j := skipSpace(s, i); depth == 1 && isAWS && j < len(s) && s[j] == ':' {
				return true
			}
		default:
			i++
		}
	}
	// It never closed: no JSON, but a lenient reader may see one.
	return true
}

// skipSpace passes over what readers of JSON commonly forgive before a value:
// white space and a byte order mark.
func skipSpace(s []byte, i int) int {
	for i < len(s) {
		switch {
		case s[i] <= ' ':
			i++
		case len(s)-i >= 3 && s[i] == 0xef && s[i+1] == 0xbb && s[i+2] == 0xbf:
			i += 3
		default:
			return i
		}
	}
	return i
}

// scanString passes over the JSON string at i and says whether it spells `_aws`.
func scanString(s []byte, i int) (end int, isAWS, ok bool) {
	const want = "_aws"
	match := 0 // how many characters agreed so far; -1 after the first that did not
	step := func(r rune) {
		if match >= 0 && match < len(want) && r == rune(want[match]) {
			match++
		} else {
			match = -1
		}
	}
	for i++; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return i + 1, match == len(want), true
		case c != '\\':
			step(rune(c))
		case i+1 >= len(s):
			return i, false, false
		case s[i+1] != 'u':
			i++
			step(-1)
		default:
			r, good := hex4(s, i+2)
			if !good {
				return i, false, false
			}
			step(r)
			i += 5
		}
	}
	return i, false, false
}

func hex4(s []byte, i int) (rune, bool) {
	if i+4 > len(s) {
		return 0, false
	}
	var r rune
	for _, c := range s[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// appendUTF8 appends s with U+FFFD for every byte that is no UTF-8.
func appendUTF8(dst, s []byte) []byte {
	if utf8.Valid(s) {
		return append(dst, s...)
	}
	start := 0
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRune(s[i:])
		if r == utf8.RuneError && size <= 1 {
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\ufffd"...)
			start = i + 1
		}
		i += size
	}
	return append(dst, s[start:]...)
}
