/* Waits for a signal, for the measurements of a running container. */
#include <unistd.h>
int main(void) {
    for (;;) pause();
}
