package fakeaws

import (
	"errors"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// maxJSONDepth is how deep values may nest; no request of CloudWatch Logs nests deeper than four.
const maxJSONDepth = 64

// errSyntax is the only thing AWS tells about a body that is no JSON.
var errSyntax = errors.New("start of structure or map found where not expected, or malformed JSON")

var errNotInteger = errors.New("an integer is expected")

// scanner reads JSON strictly: RFC 8259, valid UTF-8, no lone surrogates, no member twice in one object. (The last two
// are stricter than the RFC; no client of ours has a reason to send them, and what AWS does with them is not documented.)
type scanner struct {
	b []byte
	i int
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// peek returns the first byte of the next value, or 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.i == len(s.b) {
		return 0
	}
	return s.b[s.i]
}

// take consumes c if it comes next.
func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.i++
	return true
}

// end reports whether nothing but space is left.
func (s *scanner) end() error {
	if s.peek() != 0 || s.i != len(s.b) {
		return errSyntax
	}
	return nil
}

// literal consumes the word if it comes next.
func (s *scanner) literal(word string) bool {
	if s.peek() != word[0] || len(s.b)-s.i < len(word) || string(s.b[s.i:s.i+len(word)]) != word {
		return false
	}
	s.i += len(word)
	return true
}

// null consumes a null if it comes next.
func (s *scanner) null() bool { return s.literal("null") }

// object calls member for each member, with the scanner at its value.
func (s *scanner) object(member func(name string) error) error {
	if !s.take('{') {
		return errSyntax
	}
	if s.take('}') {
		return nil
	}
	var few [8]string
	seen := few[:0]
	var many map[string]bool
	for {
		name, err := s.string()
		if err != nil {
			return err
		}
		if many == nil {
			for _, n := range seen {
				if n == name {
					return fmt.Errorf("member %q is given twice", name)
				}
			}
			seen = append(seen, name)
			if len(seen) > 32 {
				many = make(map[string]bool, 64)
				for _, n := range seen {
					many[n] = true
				}
			}
		} else {
			if many[name] {
				return fmt.Errorf("member %q is given twice", name)
			}
			many[name] = true
		}
		if !s.take(':') {
			return errSyntax
		}
		if err := member(name); err != nil {
			return err
		}
		if s.take('}') {
			return nil
		}
		if !s.take(',') {
			return errSyntax
		}
	}
}

// array calls element for each element, with the scanner at its value.
func (s *scanner) array(element func() error) error {
	if !s.take('[') {
		return errSyntax
	}
	if s.take(']') {
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		if s.take(']') {
			return nil
		}
		if !s.take(',') {
			return errSyntax
		}
	}
}

// string reads a string.
func (s *scanner) string() (string, error) {
	b, err := s.appendString(nil)
	return string(b), err
}

// plain marks the bytes that stand for themselves inside a string.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 256; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// appendString reads a string and appends its text to dst.
func (s *scanner) appendString(dst []byte) ([]byte, error) {
	if !s.take('"') {
		return dst, errSyntax
	}
	start := len(dst)
	b, i := s.b, s.i
	for {
		from := i
		for i < len(b) && plain[b[i]] {
			i++
		}
		dst = append(dst, b[from:i]...)
		if i == len(b) {
			return dst, errSyntax
		}
		if b[i] == '"' {
			s.i = i + 1
			if !utf8.Valid(dst[start:]) {
				return dst, errors.New("a string is not valid UTF-8")
			}
			return dst, nil
		}
		if b[i] != '\\' || i+1 == len(b) {
			return dst, errSyntax // a control character, or the end
		}
		i++
		switch c := b[i]; c {
		case '"', '\\', '/':
			dst = append(dst, c)
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, ok := hex4(b[i+1:])
			if !ok {
				return dst, errSyntax
			}
			i += 4
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if len(b) > i+2 && b[i+1] == '\\' && b[i+2] == 'u' {
					if low, ok = hex4(b[i+3:]); !ok {
						return dst, errSyntax
					}
				}
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					return dst, errors.New("a string holds half of a surrogate pair")
				}
				i += 6
			}
			dst = utf8.AppendRune(dst, r)
		default:
			return dst, errSyntax
		}
		i++
	}
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// int64 reads an integer written without fraction or exponent.
func (s *scanner) int64() (int64, error) {
	s.space()
	negative := s.take('-')
	from := s.i
	var n uint64
	for s.i < len(s.b) && '0' <= s.b[s.i] && s.b[s.i] <= '9' {
		if s.i-from == 19 {
			return 0, errNotInteger
		}
		n = n*10 + uint64(s.b[s.i]-'0')
		s.i++
	}
	digits := s.i - from
	if digits == 0 || digits > 1 && s.b[from] == '0' {
		return 0, errNotInteger
	}
	if s.i < len(s.b) {
		switch s.b[s.i] {
		case '.', 'e', 'E':
			return 0, errNotInteger
		}
	}
	switch {
	case negative && n <= 1<<63:
		return -int64(n), nil
	case !negative && n < 1<<63:
		return int64(n), nil
	}
	return 0, errNotInteger
}

// bool reads true or false.
func (s *scanner) bool() (bool, error) {
	if s.literal("true") {
		return true, nil
	}
	if s.literal("false") {
		return false, nil
	}
	return false, errors.New("true or false is expected")
}

// skip reads any value and forgets it.
func (s *scanner) skip(depth int) error {
	if depth > maxJSONDepth {
		return errors.New("the body nests too deep")
	}
	switch c := s.peek(); {
	case c == '{':
		return s.object(func(string) error { return s.skip(depth + 1) })
	case c == '[':
		return s.array(func() error { return s.skip(depth + 1) })
	case c == '"':
		_, err := s.string()
		return err
	case c == 't', c == 'f':
		_, err := s.bool()
		return err
	case c == 'n':
		if s.null() {
			return nil
		}
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	}
	return errSyntax
}

// number reads a number and forgets it.
func (s *scanner) number() error {
	digits := func() int {
		from := s.i
		for s.i < len(s.b) && '0' <= s.b[s.i] && s.b[s.i] <= '9' {
			s.i++
		}
		return s.i - from
	}
	at := func(c ...byte) bool {
		for _, x := range c {
			if s.i < len(s.b) && s.b[s.i] == x {
				s.i++
				return true
			}
		}
		return false
	}
	at('-')
	zero := s.i < len(s.b) && s.b[s.i] == '0'
	if n := digits(); n == 0 || zero && n > 1 {
		return errSyntax
	}
	if at('.') && digits() == 0 {
		return errSyntax
	}
	if at('e', 'E') {
		at('+', '-')
		if digits() == 0 {
			return errSyntax
		}
	}
	return nil
}

// stringMap reads an object whose values are all strings.
func (s *scanner) stringMap() (map[string]string, error) {
	m := map[string]string{}
	err := s.object(func(name string) error {
		v, err := s.string()
		m[name] = v
		return err
	})
	return m, err
}
