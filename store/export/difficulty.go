// Package export writes what may leave for research: aggregates over many
// learners and schools, as Parquet with a data dictionary, a manifest and
// checksums beside it.
//
// Invariants:
//   - Nothing about a single learner: an exercise is left out unless enough
//     learners of enough schools have answered it; proportions near 0 and 1 are
//     capped; estimates are rounded to less than their error. Two releases differ
//     about an exercise only when enough learners are new to it.
//   - Files hold nothing that says more than their rows: bounds are those of the
//     rows, the order is that of their keys, and there are no filters. (Leaving
//     out the bounds makes parquet-go write bounds of zero, by which readers
//     skip rows.) Nothing refers to a learner, group or school.
//   - A release is a directory that appears complete or not at all, and is never
//     changed.
package export

import (
	"context"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"github.com/leerstroom/leerstroom/store"
)

// Limits of an aggregate that may leave (class A, anonymous).
const (
	MinLearners = 10
	MinSchools  = 3
	Cap         = 0.05 // proportions below are shown as this, those above 1-Cap as that
)

const (
	decimals           = 1000 // estimates are rounded to 1/decimals
	maxRowsInRowGroup  = 100_000
	maxDictionaryBytes = 1 << 20 // of a column in a row group; beyond, its texts are written out
	schemaDifficulty   = "difficulty.v1"
)

// Difficulty is one row: one exercise (opgave).
type Difficulty struct {
	Publisher         string  `parquet:"publisher,dict"`
	Exercise          string  `parquet:"exercise"`
	Goal              *string `parquet:"goal,dict,optional"`
	Subject           *string `parquet:"subject,dict,optional"`
	Difficulty        float64 `parquet:"difficulty"`
	StandardError     float64 `parquet:"standard_error"`
	Answers           int64   `parquet:"answers"`
	Learners          int64   `parquet:"learners"`
	Schools           int64   `parquet:"schools"`
	ProportionCorrect float64 `parquet:"proportion_correct"`
}

// columns of Difficulty, as the data dictionary describes them.
var difficultyFields = []Field{
	{"publisher", "string", "uitgever", "Publisher of the exercise.", "Uitgever van de opgave."},
	{"exercise", "string", "opgave", "The exercise, as the publisher calls it.", "De opgave, zoals de uitgever haar noemt."},
	{"goal", "string, null = unknown", "leerdoel", "Learning goal of the exercise.", "Leerdoel van de opgave."},
	{"subject", "string, null = unknown", "vakgebied", "Subject of the exercise.", "Vakgebied van de opgave."},
	{"difficulty", "double, logits", "moeilijkheid", "Estimated difficulty: a learner with this skill answers correctly half of the time. Rounded to 0.001.",
		"Geschatte moeilijkheid: een leerling met deze vaardigheid antwoordt in de helft van de gevallen goed. Afgerond op 0,001."},
	{"standard_error", "double, logits", "standaardfout", "Standard error of the difficulty. Rounded to 0.001.", "Standaardfout van de moeilijkheid. Afgerond op 0,001."},
	{"answers", "int64", "antwoorden", "Answers given to the exercise.", "Antwoorden op de opgave."},
	{"learners", "int64", "leerlingen", "Learners who gave them, at least 10.", "Leerlingen die ze gaven, ten minste 10."},
	{"schools", "int64", "scholen", "Schools of these learners, at least 3.", "Scholen van deze leerlingen, ten minste 3."},
	{"proportion_correct", "double, 0.05 to 0.95", "proportie goed", "Mean score of the first answer of every learner, capped at 0.05 and 0.95. Rounded to 0.001.",
		"Gemiddelde score van het eerste antwoord van elke leerling, begrensd op 0,05 en 0,95. Afgerond op 0,001."},
}

// WriteDifficulty writes a release of the difficulty of every exercise that
// enough learners of enough schools have answered. A row is that of the release
// before unless as many are new since. It makes a new directory below out, named
// after the moment, and returns it. Releases of one store are made one after the
// other.
func WriteDifficulty(ctx context.Context, s *store.Store, out string, created time.Time) (directory string, err error) {
	r, err := begin(out, "difficulty", created)
	if err != nil {
		return "", fmt.Errorf("export difficulty: %w", err)
	}
	defer r.abandon()
	dictionary, err := r.writeDictionary(schemaDifficulty, difficultyFields)
	if err != nil {
		return "", fmt.Errorf("export difficulty: %w", err)
	}
	rows, version := 0, uint64(0)
	err = r.write("difficulty.parquet", func(w io.Writer) (err error) {
		rows, version, err = writeDifficulties(ctx, s, w, dictionary)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("export difficulty: %w", err)
	}
	directory, err = r.publish(Manifest{
		Name: "difficulty", Schema: schemaDifficulty, Class: "A", Label: "anonymous", Created: created.UTC(), Rows: rows,
		MinLearners: MinLearners, MinSchools: MinSchools, Cap: Cap, SnapshotVersion: version,
	})
	if err != nil {
		return "", fmt.Errorf("export difficulty: %w", err)
	}
	return directory, nil
}

// writeDifficulties writes the Parquet file. It returns the number of rows and
// the newest version of the item snapshot among them.
func writeDifficulties(ctx context.Context, s *store.Store, w io.Writer, dictionary string) (rows int, version uint64, err error) {
	if err := s.TellItems(ctx, MinLearners, MinSchools); err != nil {
		return 0, 0, err
	}
	file := newDifficultyFile(w, dictionary)
	var block []Difficulty
	err = s.ToldItems(ctx, func(items []store.ItemStatistic) error {
		block = block[:0]
		for i := range items {
			block = append(block, difficultyOf(&items[i]))
			version = max(version, items[i].Version)
		}
		rows += len(block)
		_, err := file.Write(block)
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	if err := file.Close(); err != nil {
		return 0, 0, fmt.Errorf("finish parquet: %w", err)
	}
	return rows, version, nil
}

// newDifficultyFile begins a Parquet file. dictionary is the SHA-256 of the data
// dictionary beside it.
func newDifficultyFile(w io.Writer, dictionary string) *parquet.GenericWriter[Difficulty] {
	return parquet.NewGenericWriter[Difficulty](w,
		parquet.MaxRowsPerRowGroup(maxRowsInRowGroup), parquet.DictionaryMaxBytes(maxDictionaryBytes), parquet.Compression(&zstd.Codec{}),
		parquet.CreatedBy("leerstroom", schemaDifficulty, ""),
		parquet.KeyValueMetadata("schema", schemaDifficulty), parquet.KeyValueMetadata("class", "A"), parquet.KeyValueMetadata("label", "anonymous"),
		parquet.KeyValueMetadata("min_learners", strconv.Itoa(MinLearners)), parquet.KeyValueMetadata("min_schools", strconv.Itoa(MinSchools)),
		parquet.KeyValueMetadata("cap", strconv.FormatFloat(Cap, 'g', -1, 64)), parquet.KeyValueMetadata("dictionary_sha256", dictionary))
}

func difficultyOf(s *store.ItemStatistic) Difficulty {
	return Difficulty{
		Publisher: s.Publisher, Exercise: s.Exercise, Goal: optional(s.Goal), Subject: optional(s.Subject),
		Difficulty: round(s.Difficulty), StandardError: round(s.StandardError), Answers: s.Answers, Learners: s.Learners, Schools: s.Schools,
		ProportionCorrect: round(min(max(s.Proportion, Cap), 1-Cap)),
	}
}

func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func round(x float64) float64 { return math.Round(x*decimals) / decimals }
