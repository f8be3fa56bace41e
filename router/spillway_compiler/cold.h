/* What mypyc calls only where something goes wrong. The C compiler moves all code that leads there out of the way, so
 * that more of the code that runs fits into the processor's caches. */
#include <Python.h>

void CPy_AddTraceback(const char *filename, const char *function, int line, PyObject *globals) __attribute__((cold));
void CPy_AttributeError(const char *filename, const char *function, const char *class_name, const char *attribute,
                        int line, PyObject *globals) __attribute__((cold));
void CPy_TypeError(const char *expected, PyObject *value) __attribute__((cold));
void CPy_TypeErrorTraceback(const char *filename, const char *function, int line, PyObject *globals,
                            const char *expected, PyObject *value) __attribute__((cold));
void CPyError_OutOfMemory(void) __attribute__((cold));
