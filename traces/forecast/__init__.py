"""Forecasts of arrivals per interval, from past intervals only; docs/traces.md says what each forecaster does."""
