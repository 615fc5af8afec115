package engine_test

import (
	"testing"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

func TestMain(m *testing.M) { enginetest.Main(m) }
