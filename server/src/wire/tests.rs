//! Against PostgreSQL 15: recorded values, round trips, arbitrary input.
