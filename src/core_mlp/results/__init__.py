"""Contents of metrics/ and plots/, each written by one stage and read by reports."""
