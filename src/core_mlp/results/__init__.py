"""Contents of metrics/ and plots/, each written by one stage or command."""
