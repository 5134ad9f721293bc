"""What tests share: real servers and real repositories."""
