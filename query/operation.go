package query

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/goccy/go-yaml"
)

//go:embed openapi.yaml
var openapiYAML []byte

// document is the description of the API in both forms.
type document struct{ yaml, json []byte }

func newDocument() (document, error) {
	var tree map[string]any
	if err := yaml.Unmarshal(openapiYAML, &tree); err != nil {
		return document{}, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	text, err := json.Marshal(tree)
	if err != nil {
		return document{}, fmt.Errorf("write the OpenAPI document: %w", err)
	}
	return document{yaml: openapiYAML, json: text}, nil
}

func (h *Handler) getOpenapiJSON(c *call) error { return c.send(mediaJSON, h.document.json) }
func (h *Handler) getOpenapiYAML(c *call) error { return c.send("application/yaml", h.document.yaml) }

var stateOK = []byte(`{"status":"ok"}`)

func (h *Handler) getHealth(c *call) error { return c.send(mediaJSON, stateOK) }

func (h *Handler) getReadiness(c *call) error {
	if !h.model.Ready() {
		return refuse(http.StatusServiceUnavailable, "catching_up", "the read model follows the topics but has not caught up")
	}
	if h.config.Ready != nil {
		if err := h.config.Ready(c.r.Context()); err != nil {
			h.config.Logger.WarnContext(c.r.Context(), "not ready", "error", err)
			return refuse(http.StatusServiceUnavailable, "not_ready", "")
		}
	}
	return c.send(mediaJSON, stateOK)
}
