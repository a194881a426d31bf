"""The work: tables, models, endpoints. Knows no clocks, threads, signals or pages."""
