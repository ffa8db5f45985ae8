/* The smallest program: what is measured around it is the runtime. */
int main(void) { return 0; }
