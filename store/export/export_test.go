package export

import "io"

// WriteRows writes rows as WriteDifficulty writes what the store tells.
func WriteRows(w io.Writer, rows []Difficulty) error {
	file := newDifficultyFile(w, "")
	if _, err := file.Write(rows); err != nil {
		return err
	}
	return file.Close()
}
