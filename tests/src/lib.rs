//! Fixtures of the boundary tests.
