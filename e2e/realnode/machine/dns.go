package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// dns answers questions for addresses of version 4. A name that begins with a dot stands for all that end so.
type dns struct {
	Listen string // host:port, UDP and TCP
	Names  map[string]string
}

func (d dns) start() error {
	packets, err := net.ListenPacket("udp", d.Listen)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", d.Listen)
	if err != nil {
		return errors.Join(err, packets.Close())
	}
	go func() {
		question := make([]byte, 4096)
		for {
			n, from, err := packets.ReadFrom(question)
			if err != nil {
				return
			}
			if answer := d.answer(question[:n]); answer != nil {
				_, _ = packets.WriteTo(answer, from)
			}
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go d.stream(c)
		}
	}()
	return nil
}

func (d dns) stream(c net.Conn) {
	defer c.Close()
	for {
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		var length [2]byte
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return
		}
		question := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(c, question); err != nil {
			return
		}
		answer := d.answer(question)
		if answer == nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

// answer is the answer to a question, nil for what is none.
func (d dns) answer(question []byte) []byte {
	var p dnsmessage.Parser
	header, err := p.Start(question)
	if err != nil || header.Response {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	address := d.lookup(strings.ToLower(strings.TrimSuffix(q.Name.String(), ".")))
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	switch {
	case address == nil:
		reply.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		reply.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 5},
			Body:   &dnsmessage.AResource{A: [4]byte(address)},
		}}
	}
	packed, err := reply.Pack()
	if err != nil {
		return nil
	}
	return packed
}

func (d dns) lookup(name string) net.IP {
	for suffix := name; ; {
		if address, found := d.Names[suffix]; found {
			return net.ParseIP(address).To4()
		}
		_, after, more := strings.Cut(strings.TrimPrefix(suffix, "."), ".")
		if !more {
			return nil
		}
		suffix = "." + after
	}
}
