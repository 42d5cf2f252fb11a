"""What a release may reveal: mechanisms' settings, and the accounting behind their noise."""
