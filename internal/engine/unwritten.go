package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// mendUnwritten repairs what ClickHouse could not write on a full disk, without
// which it does not start. dir is its data directory; it must not run.
//
//   - A database whose file is empty: making it failed at first, and the second
//     time the file was there, so it was not written. Its link says which one it is.
//     Without a link the database never was.
//   - A change of a table (mutation) whose file is empty. Whoever ordered it has to
//     look whether it was carried out, as after any change that was killed.
func mendUnwritten(dir string, logger *slog.Logger) error {
	databases, err := filepath.Glob(filepath.Join(dir, "metadata", "*.sql"))
	if err != nil {
		return fmt.Errorf("look for databases: %w", err)
	}
	for _, path := range databases {
		if err := mendDatabase(path, logger); err != nil {
			return fmt.Errorf("mend %s: %w", filepath.Base(path), err)
		}
	}
	changes, err := filepath.Glob(filepath.Join(dir, "store", "*", "*", "mutation_*.txt"))
	if err != nil {
		return fmt.Errorf("look for mutations: %w", err)
	}
	for _, path := range changes {
		switch empty, err := isEmpty(path); {
		case err != nil:
			return err
		case empty:
			logger.Error("embedded clickhouse: a change of a table was not written, as on a full disk; it is forgotten", "mutation", filepath.Base(path))
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("remove mutation: %w", err)
			}
		}
	}
	return nil
}

func mendDatabase(path string, logger *slog.Logger) error {
	if empty, err := isEmpty(path); err != nil || !empty {
		return err
	}
	name := strings.TrimSuffix(path, ".sql")
	target, err := os.Readlink(name)
	if errors.Is(err, fs.ErrNotExist) {
		return os.Remove(path)
	}
	if err != nil {
		return err
	}
	logger.Error("embedded clickhouse: the description of a database was not written, as on a full disk; writing it again", "database", filepath.Base(name))
	if err := writeFile(path, []byte("ATTACH DATABASE _ UUID '"+filepath.Base(target)+"'\nENGINE = Atomic\n")); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

func isEmpty(path string) (bool, error) {
	info, err := os.Stat(path)
	if err != nil {
		return false, fmt.Errorf("look at what was written: %w", err)
	}
	return info.Size() == 0, nil
}

func syncDirectory(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}
