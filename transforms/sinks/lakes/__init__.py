"""Databases and lakehouses as outputs: a table each in DuckDB, Delta Lake, Iceberg, BigQuery."""
