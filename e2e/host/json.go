package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/tinylib/msgp/msgp"
)

var (
	errNotAMap = errors.New("the JSON is no single object")
	errTooDeep = errors.New("the JSON is nested too deeply")
)

// maxDepth is ours: it keeps a hostile line from costing quadratic time here.
const maxDepth = 512

// AppendJSON appends a JSON object as a MessagePack map, as Fluent Bit's json parser does: order and duplicate keys stay,
// whole numbers become int64 or uint64 where they fit and float64 otherwise, bytes that are no UTF-8 become U+FFFD.
// Also as there, what follows the object is ignored, unless it is a second JSON value. On an error b is returned as it was.
func AppendJSON(b, text []byte) ([]byte, error) {
	c := converter{dec: json.NewDecoder(bytes.NewReader(text)), b: b}
	c.dec.UseNumber()
	start, err := c.dec.Token()
	if err != nil {
		return b, err
	}
	if start != json.Delim('{') {
		return b, errNotAMap
	}
	if err := c.container('}', true); err != nil {
		return b, err
	}
	if c.dec.Decode(new(json.RawMessage)) == nil {
		return b, errNotAMap
	}
	return c.b, nil
}

type converter struct {
	dec   *json.Decoder
	b     []byte
	depth int
}

// container converts up to the closing delimiter. How many elements there are is known only then, so the header is put
// before them afterwards.
func (c *converter) container(end json.Delim, isMap bool) error {
	if c.depth++; c.depth > maxDepth {
		return errTooDeep
	}
	defer func() { c.depth-- }()
	start := len(c.b)
	var n uint32
	for ; ; n++ {
		tok, err := c.dec.Token()
		if err != nil {
			return err
		}
		if tok == end {
			break
		}
		if isMap {
			c.b = msgp.AppendString(c.b, tok.(string)) // the decoder lets nothing else be a key
			if tok, err = c.dec.Token(); err != nil {
				return err
			}
		}
		if err := c.value(tok); err != nil {
			return err
		}
	}
	var head [5]byte
	var header []byte
	if isMap {
		header = msgp.AppendMapHeader(head[:0], n)
	} else {
		header = msgp.AppendArrayHeader(head[:0], n)
	}
	c.b = append(c.b, header...)
	copy(c.b[start+len(header):], c.b[start:])
	copy(c.b[start:], header)
	return nil
}

func (c *converter) value(tok json.Token) error {
	switch v := tok.(type) {
	case json.Delim:
		if v == '{' {
			return c.container('}', true)
		}
		return c.container(']', false)
	case string:
		c.b = msgp.AppendString(c.b, v)
	case bool:
		c.b = msgp.AppendBool(c.b, v)
	case nil:
		c.b = msgp.AppendNil(c.b)
	case json.Number:
		return c.number(v.String())
	default:
		return fmt.Errorf("unexpected token %T", tok)
	}
	return nil
}

func (c *converter) number(s string) error {
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		c.b = msgp.AppendInt64(c.b, i)
		return nil
	}
	if u, err := strconv.ParseUint(s, 10, 64); err == nil {
		c.b = msgp.AppendUint64(c.b, u)
		return nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return err // beyond float64: Fluent Bit refuses it too
	}
	c.b = msgp.AppendFloat64(c.b, f)
	return nil
}
