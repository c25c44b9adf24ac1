"""*How is it asked, computed, kept?* Requests, tasks, uploads, and the compute service."""
