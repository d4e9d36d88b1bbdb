package chunk

import (
	"encoding/binary"
	"errors"
	"math"
)

// errShort: the bytes end inside a value. Nothing after it can be found again.
var errShort = errors.New("the chunk ends inside a record")

// errReserved: 0xc1, the one byte MessagePack never uses. What follows has no
// boundary that could be trusted.
var errReserved = errors.New("byte 0xc1, which MessagePack never uses")

type kind uint8

const (
	kindNil kind = iota
	kindBool
	kindInt   // num holds an int64
	kindUint  // num holds a uint64 above math.MaxInt64
	kindFloat // num holds the bits of a float64
	kindFloat32
	kindString
	kindBinary
	kindExt // num holds the type as an int64
	kindArray
	kindMap
)

// token is one MessagePack header, and for scalars the whole value.
type token struct {
	kind kind
	num  uint64
	// count is the number of elements of an array, of pairs of a map.
	count uint32
	// from and to bound the content of strings, binaries and extensions.
	from, to int
}

// next reads the header at off. It returns the offset after the scalar, or after
// the header of an array or map. MessagePack specification, "Formats".
func next(b []byte, off int) (t token, end int, err error) {
	if off >= len(b) {
		return t, off, errShort
	}
	c := b[off]
	off++
	switch {
	case c <= 0x7f:
		return token{kind: kindInt, num: uint64(c)}, off, nil
	case c <= 0x8f:
		return token{kind: kindMap, count: uint32(c & 0x0f)}, off, nil
	case c <= 0x9f:
		return token{kind: kindArray, count: uint32(c & 0x0f)}, off, nil
	case c <= 0xbf:
		return content(b, kindString, 0, off, int(c&0x1f))
	case c >= 0xe0:
		return token{kind: kindInt, num: uint64(int64(int8(c)))}, off, nil
	}
	switch c {
	case 0xc0:
		return token{kind: kindNil}, off, nil
	case 0xc2, 0xc3:
		return token{kind: kindBool, num: uint64(c & 1)}, off, nil
	case 0xc4, 0xc5, 0xc6:
		n, off, err := length(b, off, 1<<(c-0xc4))
		if err != nil {
			return t, off, err
		}
		return content(b, kindBinary, 0, off, n)
	case 0xc7, 0xc8, 0xc9:
		n, off, err := length(b, off, 1<<(c-0xc7))
		if err != nil {
			return t, off, err
		}
		if off >= len(b) {
			return t, off, errShort
		}
		return content(b, kindExt, b[off], off+1, n)
	case 0xca:
		if len(b)-off < 4 {
			return t, off, errShort
		}
		f := math.Float32frombits(binary.BigEndian.Uint32(b[off:]))
		return token{kind: kindFloat32, num: math.Float64bits(float64(f))}, off + 4, nil
	case 0xcb:
		if len(b)-off < 8 {
			return t, off, errShort
		}
		return token{kind: kindFloat, num: binary.BigEndian.Uint64(b[off:])}, off + 8, nil
	case 0xcc, 0xcd, 0xce, 0xcf:
		size := 1 << (c - 0xcc)
		if len(b)-off < size {
			return t, off, errShort
		}
		v := bigEndian(b[off : off+size])
		k := kindInt
		if v > math.MaxInt64 {
			k = kindUint
		}
		return token{kind: k, num: v}, off + size, nil
	case 0xd0, 0xd1, 0xd2, 0xd3:
		size := 1 << (c - 0xd0)
		if len(b)-off < size {
			return t, off, errShort
		}
		shift := 64 - 8*size
		v := int64(bigEndian(b[off:off+size])<<shift) >> shift
		return token{kind: kindInt, num: uint64(v)}, off + size, nil
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8:
		if off >= len(b) {
			return t, off, errShort
		}
		return content(b, kindExt, b[off], off+1, 1<<(c-0xd4))
	case 0xd9, 0xda, 0xdb:
		n, off, err := length(b, off, 1<<(c-0xd9))
		if err != nil {
			return t, off, err
		}
		return content(b, kindString, 0, off, n)
	case 0xdc, 0xdd:
		n, off, err := length(b, off, 2<<(c-0xdc))
		return token{kind: kindArray, count: uint32(n)}, off, err
	case 0xde, 0xdf:
		n, off, err := length(b, off, 2<<(c-0xde))
		return token{kind: kindMap, count: uint32(n)}, off, err
	}
	return t, off - 1, errReserved
}

func content(b []byte, k kind, ext byte, off, n int) (token, int, error) {
	if n > len(b)-off {
		return token{}, off, errShort
	}
	return token{kind: k, num: uint64(int64(int8(ext))), from: off, to: off + n}, off + n, nil
}

func length(b []byte, off, size int) (n, end int, err error) {
	if len(b)-off < size {
		return 0, off, errShort
	}
	return int(bigEndian(b[off : off+size])), off + size, nil
}

func bigEndian(b []byte) uint64 {
	var v uint64
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	return v
}

// skip returns the offset after the whole value at off. It counts instead of
// recursing, so no nesting can exhaust the stack.
func skip(b []byte, off int) (int, error) {
	for todo := uint64(1); todo > 0; todo-- {
		t, end, err := next(b, off)
		if err != nil {
			return end, err
		}
		switch t.kind {
		case kindArray:
			todo += uint64(t.count)
		case kindMap:
			todo += 2 * uint64(t.count)
		}
		off = end
	}
	return off, nil
}
