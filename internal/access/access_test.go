package access_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/access"
)

func open(t *testing.T, path string) *access.Keys {
	t.Helper()
	keys, err := access.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func request(header string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/v1/answers", nil)
	if header != "" {
		r.Header.Set("Authorization", header)
	}
	return r
}

func TestCreatedKeyAuthenticates(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "apikeys.json")
	keys := open(t, path)
	text, key, err := keys.Create(access.Scope{Role: access.RolePublisher, Publisher: "bingel", Schools: []string{"12AB01", "12AB00", "12AB01"}})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(text, "lsk_") || len(text) != 4+43 {
		t.Errorf("key has %d characters, want lsk_ and 43", len(text))
	}
	for _, k := range []*access.Keys{keys, open(t, path)} {
		got, err := k.Authenticate(request("Bearer " + text))
		if err != nil || got.KeyID != key.ID || got.Publisher != "bingel" || got.Role != access.RolePublisher {
			t.Errorf("Authenticate = %+v, %v", got, err)
		}
		if !got.Covers("12AB00") || got.Covers("12AB02") {
			t.Errorf("Covers is wrong for the scope %v", got.Schools)
		}
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(content), text) || strings.Contains(string(content), text[4:]) {
		t.Error("the file holds the key")
	}
	status, err := os.Stat(path)
	if err != nil || status.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file = %v, %v, want 0600", status.Mode(), err)
	}
}

func TestAuthenticateRefuses(t *testing.T) {
	t.Parallel()
	keys := open(t, filepath.Join(t.TempDir(), "apikeys.json"))
	text, _, err := keys.Create(access.Scope{Role: access.RoleAnalyst})
	if err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]error{
		"":                            access.ErrNoKey,
		text:                          access.ErrNoKey,
		"Basic " + text:               access.ErrNoKey,
		"Bearer":                      access.ErrNoKey,
		"Bearer ":                     access.ErrUnknownKey,
		"Bearer lsk_":                 access.ErrUnknownKey,
		"Bearer " + text[4:]:          access.ErrUnknownKey,
		"Bearer " + text[:46] + "!":   access.ErrUnknownKey,
		"Bearer " + text + "x":        access.ErrUnknownKey,
		"Bearer " + text + " " + text: access.ErrUnknownKey,
	} {
		if _, err := keys.Authenticate(request(header)); !errors.Is(err, want) {
			t.Errorf("Authenticate(header of %d characters) = %v, want %v", len(header), err, want)
		} else if len(header) > 10 && strings.Contains(err.Error(), text[4:]) {
			t.Error("the error quotes the key")
		}
	}
	if _, err := keys.Authenticate(request("bearer " + text)); err != nil {
		t.Errorf("Authenticate(lower-case scheme) = %v", err)
	}
}

func TestRevokeReachesOtherProcesses(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "apikeys.json")
	server, admin := open(t, path), open(t, path)
	text, key, err := admin.Create(access.Scope{Role: access.RoleEngine, Engine: "adapt"})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the new key to work", func() bool { _, err := server.Lookup(text); return err == nil })
	if err := admin.Revoke(key.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Lookup(text); !errors.Is(err, access.ErrUnknownKey) {
		t.Errorf("Lookup after Revoke = %v, want ErrUnknownKey", err)
	}
	waitFor(t, "the revoked key to stop working", func() bool { _, err := server.Lookup(text); return errors.Is(err, access.ErrUnknownKey) })
	if err := admin.Revoke(key.ID); !errors.Is(err, access.ErrNoSuchKey) {
		t.Errorf("Revoke twice = %v, want ErrNoSuchKey", err)
	}
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

func TestUnreadableFileLetsNobodyIn(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"damaged":        func(p string) error { return os.WriteFile(p, []byte(`{"keys":[`), 0o600) },
		"group-readable": func(p string) error { return os.Chmod(p, 0o640) },
		"unknown role": func(p string) error {
			return os.WriteFile(p, []byte(`{"keys":[{"id":"k","role":"admin","hash":""}]}`), 0o600)
		},
		"unknown field": func(p string) error { return os.WriteFile(p, []byte(`{"keys":[],"allow":true}`), 0o600) },
	} {
		path := filepath.Join(t.TempDir(), "apikeys.json")
		keys := open(t, path)
		text, _, err := keys.Create(access.Scope{Role: access.RoleAnalyst})
		if err != nil {
			t.Fatal(err)
		}
		if err := damage(path); err != nil {
			t.Fatal(err)
		}
		if _, err := access.Open(path); !errors.Is(err, access.ErrUnavailable) {
			t.Errorf("%s: Open = %v, want ErrUnavailable", name, err)
		}
		if name == "group-readable" {
			continue // a change of mode alone is seen at the next start
		}
		waitFor(t, "the damaged file to be noticed", func() bool { _, err := keys.Lookup(text); return errors.Is(err, access.ErrUnavailable) })
	}
}

func TestScopesAreValidated(t *testing.T) {
	t.Parallel()
	keys := open(t, filepath.Join(t.TempDir(), "apikeys.json"))
	for _, scope := range []access.Scope{
		{}, {Role: "admin"}, {Role: access.RolePublisher}, {Role: access.RoleEngine}, {Role: access.RoleSchool},
		{Role: access.RolePublisher, Publisher: "a:b"}, {Role: access.RolePublisher, Publisher: "a|b"}, {Role: access.RolePublisher, Publisher: "A"},
		{Role: access.RolePublisher, Publisher: strings.Repeat("a", 65)}, {Role: access.RoleAnalyst, Publisher: "bingel"},
		{Role: access.RolePublisher, Publisher: "a", Engine: "b"}, {Role: access.RoleSchool, Schools: []string{"12ab00"}},
		{Role: access.RoleAnalyst, Schools: []string{""}},
	} {
		if _, _, err := keys.Create(scope); err == nil {
			t.Errorf("Create(%+v) = nil, want an error", scope)
		}
	}
	if _, err := os.Stat(filepath.Join(t.TempDir(), "apikeys.json")); err == nil {
		t.Error("a refused scope made a file")
	}
}

func TestConcurrentCreatorsLoseNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "apikeys.json")
	var creators sync.WaitGroup
	for i := range 8 {
		creators.Go(func() {
			keys, err := access.Open(path)
			if err == nil {
				_, _, err = keys.Create(access.Scope{Role: access.RolePublisher, Publisher: fmt.Sprint("p", i)})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	creators.Wait()
	list, err := open(t, path).List()
	if err != nil || len(list) != 8 {
		t.Errorf("List = %d keys, %v, want 8", len(list), err)
	}
}

func TestSchoolKeyWithoutScopeCoversNothing(t *testing.T) {
	t.Parallel()
	for role, want := range map[access.Role]bool{access.RoleSchool: false, access.RoleAnalyst: true, access.RoleEngine: true, access.RolePublisher: true} {
		p := access.Principal{Role: role}
		if got := p.Covers("12AB00"); got != want {
			t.Errorf("Covers for role %s without schools = %v, want %v", role, got, want)
		}
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	recorder := httptest.NewRecorder()
	access.WriteProblem(recorder, access.Problem{Status: 503, Code: "busy", Detail: "wait", RetryAfter: 10 * time.Millisecond})
	var got map[string]any
	if err := json.Unmarshal(recorder.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if recorder.Code != 503 || recorder.Header().Get("Retry-After") != "1" || recorder.Header().Get("Content-Type") != "application/problem+json" ||
		got["status"] != 503.0 || got["title"] != "Service Unavailable" || got["code"] != "busy" || got["type"] != "about:blank" {
		t.Errorf("problem = %d %v %v", recorder.Code, recorder.Header(), got)
	}
	for err, want := range map[error]int{access.ErrNoKey: 401, access.ErrUnknownKey: 401, access.ErrUnavailable: 503} {
		recorder := httptest.NewRecorder()
		access.Deny(recorder, err)
		if recorder.Code != want {
			t.Errorf("Deny(%v) = %d, want %d", err, recorder.Code, want)
		}
		if want == 401 && recorder.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("Deny(%v) sends no WWW-Authenticate", err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	keys, err := access.Open(filepath.Join(b.TempDir(), "apikeys.json"))
	if err != nil {
		b.Fatal(err)
	}
	text, _, err := keys.Create(access.Scope{Role: access.RolePublisher, Publisher: "bingel"})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := keys.Lookup(text); err != nil {
			b.Fatal(err)
		}
	}
}
