package node

import (
	"bufio"
	"net/http"
	"strconv"
	"strings"
)

// Metrics are the sums of all samples of each metric at an address; none where nobody answers.
func Metrics(address string) map[string]float64 {
	sums := map[string]float64{}
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		return sums
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, _, _ := strings.Cut(line, " ")
		name, _, _ = strings.Cut(name, "{")
		if v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64); err == nil {
			sums[name] += v
		}
	}
	return sums
}
