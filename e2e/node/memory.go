package node

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Resident is a process's resident memory in MB; 0 where there is no such process.
func Resident(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	line, _, _ := strings.Cut(after, "kB")
	kb, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return 0
	}
	return float64(kb) / 1024
}
