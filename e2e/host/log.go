package host

import (
	"regexp"
	"strings"
	"time"
)

// LogLine is a line of the log.
type LogLine struct {
	Time  time.Time // zero when the line is not in Fluent Bit's format, such as a Go panic's
	Level string    // info, warn, error, debug; "" likewise
	Text  string    // what follows the level, or the whole line
	Raw   string
}

var logLine = regexp.MustCompile(`^\[(\d{4}/\d{2}/\d{2} \d{2}:\d{2}:\d{2}(?:\.\d+)?)\] \[ *(\w+)\] (.*)$`)

// ParseLogLine reads a line in Fluent Bit's format, `[2026/11/23 10:00:00.123] [ info] text`, in local time.
func ParseLogLine(line string) LogLine {
	m := logLine.FindStringSubmatch(line)
	if m == nil {
		return LogLine{Text: line, Raw: line}
	}
	at, err := time.ParseInLocation("2006/01/02 15:04:05", m[1], time.Local)
	if err != nil {
		return LogLine{Text: line, Raw: line}
	}
	return LogLine{Time: at, Level: m[2], Text: m[3], Raw: line}
}

// Match is Fluent Bit's Match: `*` stands for any characters, also none and also dots, everything else for itself.
func Match(pattern, tag string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !strings.HasPrefix(tag, head) {
		return false
	}
	tag = tag[len(head):]
	if !star {
		return tag == ""
	}
	parts := strings.Split(rest, "*")
	for _, part := range parts[:len(parts)-1] {
		i := strings.Index(tag, part)
		if i < 0 {
			return false
		}
		tag = tag[i+len(part):]
	}
	return strings.HasSuffix(tag, parts[len(parts)-1])
}
