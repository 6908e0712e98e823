package main

import (
	"context"

	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/status"
)

func wireDemo(context.Context, DemoOptions, func(string)) (status.Demo, error) {
	return status.Demo{}, &migrate.Problem{Kind: migrate.Failed, What: "the demo is not part of this build"}
}
