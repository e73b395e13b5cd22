"""When it is said: times of segments and words, and long recordings read by them."""
