package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// layout is where a deployment keeps its files: everything below one directory.
//
//	keys/tokens.json     keyset of the tokens (0600), pseudonymize and serve only
//	keys/raw.private     opens raw messages and dead letters (0600), pseudonymize only
//	keys/raw-ID.private  the same, one for every rotation (0600)
//	keys/raw.public      seals raw messages and dead letters
//	apikeys.json         hashes of API keys (0600)
//	audit/               who saw which learners (0600)
//	kafka/, clickhouse/  the embedded engines
//	members/             which members of consumer groups the processes are
//	erasures/            certificates of erasures (0600)
//	exports/             what `leerstroom export` writes by default
type layout struct{ data string }

func (l layout) path(name ...string) string {
	return filepath.Join(append([]string{l.data}, name...)...)
}

func (l layout) tokenKeys() string { return l.path("keys", "tokens.json") }

func (l layout) private(purpose string) string { return l.path("keys", purpose+".private") }

func (l layout) public(purpose string) string { return l.path("keys", purpose+".public") }

func (l layout) apiKeys() string { return l.path("apikeys.json") }

func (l layout) audit() string { return l.path("audit") }

func (l layout) members() string { return l.path("members") }

// prepare makes the directories, readable by the owner only.
func (l layout) prepare() error {
	for _, directory := range []string{l.data, l.path("keys"), l.path("exports")} {
		if err := os.MkdirAll(directory, 0o700); err != nil {
			return fmt.Errorf("prepare data directory: %w", err)
		}
	}
	return nil
}

// addDataFlag is the flag that nearly every command has.
func addDataFlag(flags interface {
	StringVar(p *string, name, value, usage string)
}, data *string) {
	flags.StringVar(data, "data", "data", "directory that holds everything of this deployment")
}
