package main

import (
	"bufio"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// spareBytes is how much memory this process may still take without driving
// others out: what the machine has left, or what the control group does when that
// is less. It is 0 where the system does not tell.
func spareBytes() int64 { return spareBytesAt("/proc", "/sys/fs/cgroup") }

func spareBytesAt(proc, controlGroups string) int64 {
	kib, err := strconv.ParseInt(strings.TrimSuffix(fieldOf(filepath.Join(proc, "meminfo"), "MemAvailable:"), " kB"), 10, 64)
	if err != nil {
		return 0
	}
	spare := kib << 10
	// "0::" begins the line of version 2, whose files hold numbers of bytes or "max".
	group := filepath.Join(controlGroups, fieldOf(filepath.Join(proc, "self", "cgroup"), "0::"))
	for ; strings.HasPrefix(group, controlGroups); group = filepath.Dir(group) {
		if limit := numberIn(filepath.Join(group, "memory.max")); limit < math.MaxInt64 {
			spare = min(spare, limit-min(limit, numberIn(filepath.Join(group, "memory.current"))))
		}
	}
	return max(0, spare)
}

// fieldOf returns what follows a word that begins a line; empty when none does.
func fieldOf(path, word string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if rest, found := strings.CutPrefix(lines.Text(), word); found {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// numberIn reads a file that holds one number; without one nothing is bounded.
func numberIn(path string) int64 {
	content, err := os.ReadFile(path)
	if err != nil {
		return math.MaxInt64
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64)
	if err != nil {
		return math.MaxInt64
	}
	return n
}
