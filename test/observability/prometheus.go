package observability

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// askTimeout bounds one question to Prometheus.
const askTimeout = 30 * time.Second

// Series is a curve: values at times, in order.
type Series struct {
	Labels map[string]string
	Times  []time.Time
	Values []float64
}

// QueryRange asks Prometheus at url for a query's values from start to end.
func QueryRange(ctx context.Context, prometheus, query string, start, end time.Time, step time.Duration) ([]Series, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	form := url.Values{
		"query": {query}, "step": {fmt.Sprint(int(step.Seconds()))},
		"start": {start.Format(time.RFC3339)}, "end": {end.Format(time.RFC3339)},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, prometheus+"/api/v1/query_range", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any // a number and a string
			}
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("ask %q: %w", query, err)
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("ask %q: %s", query, answer.Error)
	}
	var out []Series
	for _, r := range answer.Data.Result {
		s := Series{Labels: r.Metric}
		for _, v := range r.Values {
			at, _ := v[0].(float64)
			text, _ := v[1].(string)
			value, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return nil, fmt.Errorf("ask %q: %w", query, err)
			}
			if value != value { // a quantile of nothing
				continue
			}
			s.Times = append(s.Times, time.UnixMilli(int64(at*1e3)))
			s.Values = append(s.Values, value)
		}
		if len(s.Values) > 0 {
			out = append(out, s)
		}
	}
	return out, nil
}

// legend fills in a target's legend, as Grafana does.
func legend(format string, labels map[string]string) string {
	for k, v := range labels {
		format = strings.ReplaceAll(format, "{{"+k+"}}", v)
	}
	return format
}
