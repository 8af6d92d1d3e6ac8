"""The library that training and serving share. Importing it starts nothing and needs no ray or torch."""
