// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A setting is one that ParseLimits, ParseWeather or ParseForeign reads. Hint says what a value looks
// like; where it is empty, the name alone sets it.
type setting struct {
	name, hint string
	set        func(value string) bool
}

// parseSettings reads a preset and settings, with commas between: the preset, if there is one, comes first.
func parseSettings[T any](what, text string, presets map[string]T, v *T, settings []setting) error {
	for i, part := range strings.Split(text, ",") {
		part = strings.TrimSpace(part)
		name, value, valued := strings.Cut(part, "=")
		if preset, ok := presets[part]; ok && i == 0 {
			*v = preset
			continue
		}
		k := slices.IndexFunc(settings, func(s setting) bool { return s.name == name })
		switch {
		case k < 0:
			var known []string
			for _, s := range settings {
				known = append(known, s.name)
			}
			first := ""
			if len(presets) > 0 {
				first = strings.Join(slices.Sorted(maps.Keys(presets)), ", ") + " first, then any of "
			}
			return fmt.Errorf("%s: there is no %q: give %s%s", what, part, first, strings.Join(known, ", "))
		case settings[k].hint == "" && valued:
			return fmt.Errorf("%s: %s: it takes no value", what, part)
		case settings[k].hint != "" && !valued, !settings[k].set(value):
			return fmt.Errorf("%s: %s: give %s=%s", what, part, name, settings[k].hint)
		}
	}
	return nil
}

func numberSetting(name string, v *float64) setting {
	return setting{name, "NUMBER", func(text string) bool {
		n, err := strconv.ParseFloat(text, 64)
		*v = n
		return err == nil
	}}
}

func countSetting(name string, v *int) setting {
	return setting{name, "COUNT", func(text string) bool {
		n, err := strconv.Atoi(text)
		*v = n
		return err == nil
	}}
}

func switchSetting(name string, v *bool) setting {
	return setting{name, "", func(string) bool { *v = true; return true }}
}

func shareSetting(name string, v *float64) setting {
	return setting{name, "SHARE, as 0.1 or 10%", func(text string) bool {
		number, percent := strings.CutSuffix(text, "%")
		n, err := strconv.ParseFloat(number, 64)
		if percent {
			n /= 100
		}
		*v = n
		return err == nil
	}}
}

func latencySetting(name string, v *Latency) setting {
	return setting{name, "MEDIAN or MEDIAN/P95, as 200ms/2s", func(text string) bool {
		median, p95, two := strings.Cut(text, "/")
		var err error
		*v = Latency{}
		if v.Median, err = time.ParseDuration(median); err == nil && two {
			v.P95, err = time.ParseDuration(p95)
		}
		return err == nil
	}}
}
