"""The explainability map as a function of the token: its forms, its derivative, and what is minimised."""
