package fakeaws

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/fnv"
)

// A page token holds what the page was asked for and where it ended; it is opaque to clients. One that was made for
// another query is refused.
type pageTokenContent struct {
	Query uint64   `json:"q"`
	At    []string `json:"a"`
}

// queryID sums up what a listing was asked for.
func queryID(parts ...any) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		switch p := p.(type) {
		case *string:
			fmt.Fprintf(h, "%t %q|", p != nil, deref(p))
		case *int64:
			fmt.Fprintf(h, "%t %d|", p != nil, deref(p))
		default:
			fmt.Fprintf(h, "%q|", fmt.Sprint(p))
		}
	}
	return h.Sum64()
}

func pageToken(query uint64, at ...string) string {
	b, err := json.Marshal(pageTokenContent{query, at})
	if err != nil {
		panic(err) // strings and a number always marshal
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// readPageToken returns the n strings the token was made of, or nil when there is no token.
func readPageToken(token *string, query uint64, n int) ([]string, *APIError) {
	if token == nil {
		return nil, nil
	}
	var c pageTokenContent
	b, err := base64.RawURLEncoding.DecodeString(*token)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil || c.Query != query || len(c.At) != n {
		return nil, invalidParameter(textInvalidToken)
	}
	return c.At, nil
}
