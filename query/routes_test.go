package query

import (
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// Every route and its query parameters are in the document, and the document
// holds nothing else but what the connector serves.
func TestDocumentDescribesTheRoutes(t *testing.T) {
	t.Parallel()
	document, err := openapi3.NewLoader().LoadFromData(openapiYAML)
	if err != nil {
		t.Fatal(err)
	}
	served := map[string][]string{"POST /v1/answers": nil, "POST /v1/test-results": nil}
	h := &Handler{config: HandlerConfig{Registry: nil}}
	for _, r := range h.routes() {
		served[r.pattern] = r.params
		_, path, _ := strings.Cut(r.pattern, " ")
		method, _, _ := strings.Cut(r.pattern, " ")
		item := document.Paths.Value(path)
		if item == nil || item.GetOperation(method) == nil {
			t.Errorf("%s is not in the document", r.pattern)
			continue
		}
		if open := item.GetOperation(method).Security != nil && len(*item.GetOperation(method).Security) == 0; open != (len(r.roles) == 0) {
			t.Errorf("%s: the document says open = %v, the handler %v", r.pattern, open, !open)
		}
	}
	for path, item := range document.Paths.Map() {
		for method, operation := range item.Operations() {
			params, ok := served[method+" "+path]
			if !ok {
				t.Errorf("%s %s is in the document and not served", method, path)
			}
			var documented []string
			for _, p := range operation.Parameters {
				if p.Value.In == openapi3.ParameterInQuery {
					documented = append(documented, p.Value.Name)
				}
			}
			slices.Sort(documented)
			params = slices.Sorted(slices.Values(params))
			if !slices.Equal(documented, params) {
				t.Errorf("%s %s: the document has parameters %v, the handler %v", method, path, documented, params)
			}
		}
	}
}
