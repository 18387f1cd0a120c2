/* matmul.h: what the library asks of matmul.cu. */
#ifndef PG_CUDA_MATMUL_H
#define PG_CUDA_MATMUL_H

/* Why the last product of this thread failed, or NULL: cuBLASLt that cannot be opened (which names were tried), or what it refused. */
extern "C" const char *pg_matmul_problem(void);

#endif
