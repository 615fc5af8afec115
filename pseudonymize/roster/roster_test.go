package roster_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/pseudonymize/roster"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

const school = "12AB00"

var eckid = "https://ketenid.nl/201703/" + strings.Repeat("0f", 64)

func read(t *testing.T, text string) []roster.Line {
	t.Helper()
	lines, err := roster.Read(strings.NewReader(text), roster.Config{School: school})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestReadTakesColumnsByTheirNames(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"comma": "las,eckid,publisher:bingel,first_name,name_prefix,last_name,group,year_group\n" +
			"4711," + strings.ToUpper(eckid[:8]) + eckid[8:] + ",b-17,Sanne,de,Vries,5A,5\n",
		"semicolon, byte order mark, other order": "\ufeffGroup;Year_Group;First_Name;Last_Name;Name_Prefix;LAS;ECKID;publisher:bingel\r\n" +
			"5A;5;Sanne;Vries;de; 4711 ;" + eckid + ";b-17\r\n",
		"tab": "eckid\tlas\tpublisher:bingel\tfirst_name\tname_prefix\tlast_name\tgroup\tyear_group\n" +
			eckid + "\t4711\tb-17\tSanne\tde\tVries\t5A\t5\n",
	} {
		lines := read(t, text)
		if len(lines) != 1 || lines[0].Rule != "" || lines[0].Number != 2 {
			t.Fatalf("%s: %d lines, first refused by %q; want one good one, line 2", name, len(lines), lines[0].Rule)
		}
		want := []vault.Alias{
			{School: school, Identifier: raw.Identifier{Scheme: raw.SchemeLAS, Value: "4711"}},
			{School: school, Identifier: raw.Identifier{Scheme: raw.SchemeECKID, Value: eckid}},
			{School: school, Publisher: "bingel", Identifier: raw.Identifier{Scheme: raw.SchemePublisher, Value: "b-17"}},
		}
		got := lines[0].Aliases
		if len(got) != 3 || !slices.Contains(got, want[0]) || !slices.Contains(got, want[1]) || !slices.Contains(got, want[2]) {
			t.Errorf("%s: the aliases are not the three of the line", name)
		}
		if n := lines[0].Name; n != (vault.Name{First: "Sanne", Prefix: "de", Last: "Vries", Group: "5A", YearGroup: 5}) {
			t.Errorf("%s: the name is another", name)
		}
	}
}

func TestReadRefusesLinesByRule(t *testing.T) {
	t.Parallel()
	lines := read(t, "eckid,las,first_name,year_group\n"+
		eckid+",1,A,1\n"+ // 2
		",,B,2\n"+ // 3: nobody
		"eckid_L1,3,C,3\n"+ // 4
		"https://ketenid.nl/pilot/"+strings.Repeat("0f", 64)+",4,D,4\n"+ // 5
		",063138219,E,5\n"+ // 6: a person number
		",6,F,9\n"+ // 7
		",7,G\n"+ // 8
		",\"8\n8\",H,1\n"+ // 9 and 10
		",9,I,1\n"+ // 11
		",9,J,1\n"+ // 12: the same alias
		",\xff,K,1\n"+ // 13
		",13,L\x01,1\n") // 14
	var got []string
	for _, l := range lines {
		if l.Rule != "" {
			got = append(got, fmt.Sprintf("%d %s %s", l.Number, l.Column, l.Rule))
		}
		if l.Rule != "" && l.Rule != roster.RuleTwice && len(l.Aliases) > 0 {
			t.Errorf("line %d is refused and keeps its aliases", l.Number)
		}
	}
	want := []string{"3  no_identifier", "4 eckid not_eckid", "5 eckid test_identifier", "6 las looks_like_bsn", "7 year_group out_of_range", "8  wrong_columns",
		"9 las bad_characters", "11 las duplicate_alias", "12 las duplicate_alias", "13 las invalid_utf8", "14  bad_name"}
	if !slices.Equal(got, want) {
		t.Errorf("refused:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestReadRefusesFilesWithoutQuotingThem(t *testing.T) {
	t.Parallel()
	const canary = "canary-4711"
	for name, text := range map[string]string{
		"empty":             "",
		"no header":         canary + ",Sanne\n",
		"unknown column":    "las," + canary + "\n",
		"no alias":          "first_name,last_name\n" + canary + ",x\n",
		"column twice":      "las,las\n" + canary + ",x\n",
		"nameless":          "las,publisher:\n" + canary + ",x\n",
		"malformed CSV":     "las,first_name\n\"" + canary + "\"x,y\n",
		"too many lines":    "las\n" + strings.Repeat(canary+"\n", roster.MaxLines+1),
		"an open quotation": "las\n\"" + canary,
	} {
		_, err := roster.Read(strings.NewReader(text), roster.Config{School: school})
		if !errors.Is(err, roster.ErrFormat) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: Read = %v, want %v without a value", name, err, roster.ErrFormat)
		}
	}
	if _, err := roster.Read(strings.NewReader("las\n1\n"), roster.Config{School: "12ab"}); err == nil {
		t.Error("Read for no school = nil, want an error")
	}
}

func TestParseAlias(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]raw.Identity{
		"las:47:11":           {School: school, Identifier: raw.Identifier{Scheme: raw.SchemeLAS, Value: "47:11"}},
		" eckid:" + eckid:     {School: school, Identifier: raw.Identifier{Scheme: raw.SchemeECKID, Value: eckid}},
		"publisher:bingel:17": {School: school, Publisher: "bingel", Identifier: raw.Identifier{Scheme: raw.SchemePublisher, Value: "17"}},
	} {
		if got, err := roster.ParseAlias(roster.Config{School: school}, text); err != nil || got != want {
			t.Errorf("ParseAlias of scheme %s failed: %v", want.Scheme, err)
		}
	}
	for _, text := range []string{"", "canary", "canary:1", "las:", "publisher:canary", "publisher::canary", "eckid:canary", "las:" + strings.Repeat("canary", 99)} {
		if _, err := roster.ParseAlias(roster.Config{School: school}, text); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("ParseAlias of a malformed text = %v, want an error without the value", err)
		}
	}
}

// FuzzRead: no input panics, an error quotes nothing, and every line is good or
// refused by a rule.
func FuzzRead(f *testing.F) {
	f.Add("las,eckid,first_name,year_group\n1," + eckid + ",A,3\n\"2\",,B,\n")
	f.Add("\ufefflas;group\n1;5A\n1;5B\n")
	f.Add("publisher:x\tlast_name\na\t\"b\"\"c\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		lines, err := roster.Read(strings.NewReader(text), roster.Config{School: school})
		if err != nil {
			return
		}
		for _, l := range lines {
			if l.Rule == "" {
				if len(l.Aliases) == 0 || l.Name.Validate() != nil {
					t.Fatalf("line %d passed without alias or with a bad name", l.Number)
				}
				for _, a := range l.Aliases {
					if vault.Check(&a) != nil || vault.Normalise(a) != a {
						t.Fatalf("line %d passed with an alias that is not normal", l.Number)
					}
				}
			}
		}
	})
}

// FuzzParseAlias: what passes is a normal alias of the school, and an error quotes
// nothing of the text.
func FuzzParseAlias(f *testing.F) {
	for _, text := range []string{"las:4711", "eckid:" + eckid, "publisher:bingel:x-1", "publisher:bingel", "basispoort: 12 ", "bsn:123456782", ":", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := roster.ParseAlias(roster.Config{School: school}, text)
		if err != nil {
			if a != (vault.Alias{}) {
				t.Fatal("an alias is returned beside an error")
			}
			if value := text[strings.LastIndex(text, ":")+1:]; len(value) > 12 && strings.Contains(err.Error(), value) {
				t.Fatal("the error quotes the value")
			}
			return
		}
		if a.School != school || vault.Check(&a) != nil || vault.Normalise(a) != a {
			t.Fatal("an alias passed that is not normal")
		}
	})
}
