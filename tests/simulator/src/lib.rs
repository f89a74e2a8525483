//! EC2 and IMDSv2 as the tests need them.
