package export

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Field describes a column in the data dictionary.
type Field struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Term    string `json:"term_nl"`
	English string `json:"description_en"`
	Dutch   string `json:"description_nl"`
}

type dictionary struct {
	Schema string  `json:"schema"`
	Fields []Field `json:"fields"`
}

// writeDictionary adds dictionary.json and a README in English and in Dutch. It
// returns the SHA-256 of the dictionary.
func (r *release) writeDictionary(schema string, fields []Field) (digest string, err error) {
	text, err := json.MarshalIndent(dictionary{schema, fields}, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write data dictionary: %w", err)
	}
	if err := r.writeBytes("dictionary.json", append(text, '\n')); err != nil {
		return "", err
	}
	digest = r.files[len(r.files)-1].SHA256
	if err := r.writeBytes("README.md", []byte(readme(readmeEnglish, fields, func(f Field) string { return f.English }))); err != nil {
		return "", err
	}
	return digest, r.writeBytes("LEESMIJ.md", []byte(readme(readmeDutch, fields, func(f Field) string { return f.Dutch })))
}

func readme(text string, fields []Field, describe func(Field) string) string {
	var table strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", f.Name, f.Type, describe(f))
	}
	return text + table.String()
}

const readmeEnglish = `# Difficulty of exercises

One row per exercise (` + "`difficulty.parquet`" + `). Anonymous aggregates, class A: an exercise is in it only
when at least 10 learners of at least 3 schools have answered it; proportions below 0.05 are shown as
0.05, those above 0.95 as 0.95. A row stays as it was in the release before until at least 10 learners of
at least 3 schools are new to the exercise. Releases must not be combined to learn about single learners.

` + "`manifest.json`" + ` says what the release was made of; check the files with ` + "`sha256sum -c SHA256SUMS`" + `.

| Column | Type | Meaning |
|-|-|-|
`

const readmeDutch = `# Moeilijkheid van opgaven

Eén rij per opgave (` + "`difficulty.parquet`" + `). Anonieme aggregaten, klasse A: een opgave staat er alleen in
als ten minste 10 leerlingen van ten minste 3 scholen haar hebben beantwoord; proporties onder 0,05 worden
getoond als 0,05, die boven 0,95 als 0,95. Een rij blijft zoals in de vorige levering totdat ten minste 10
leerlingen van ten minste 3 scholen nieuw zijn voor de opgave. Leveringen mogen niet worden gecombineerd om iets over
afzonderlijke leerlingen te weten te komen.

` + "`manifest.json`" + ` zegt waarvan de levering is gemaakt; controleer de bestanden met ` + "`sha256sum -c SHA256SUMS`" + `.

| Kolom | Type | Betekenis |
|-|-|-|
`
