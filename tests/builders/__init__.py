"""What several test modules build with: files, settings, a running command, a running page. No test lies here."""
