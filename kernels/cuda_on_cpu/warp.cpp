/* warp.cpp: where the lanes of a warp meet. See include/on_cpu/warp.h.
 *
 * A meeting is found by its warp and the lowest lane of its mask, so that two halves of a warp can each have one.
 */
#include "include/on_cpu/warp.h"

#include "block.h"
#include "sanitizer_hooks.h"

namespace on_cpu {

struct meeting {
    const warp_operation *operation;
    unsigned arrived, generation;
    warp_call call;
    char order[2][2];     /* for the thread sanitizer: [block's turn][generation's turn] */
};
static meeting meetings[WARPS_MAX][WARP];

void warps_reset(void) {
    for (auto &warp : meetings) {
        for (meeting &m : warp) m.arrived = 0;
    }
}

void collective(const warp_operation &operation, unsigned mask, const lane_call &mine, const char *file, int line) {
    const unsigned linear = current->linear, warp = linear / WARP, lane = linear % WARP;
    if (warp == block.size / WARP && block.size % WARP != 0) mask &= (1u << block.size % WARP) - 1;
    if (!(mask >> lane & 1)) fail(file, line, "%s: lane %u is not in its own mask %08x", operation.name, lane, mask);
    meeting &m = meetings[warp][__builtin_ctz(mask)];
    if (m.arrived == 0) {
        m.operation = &operation;
        m.call.mask = mask;
        m.call.file = file;
        m.call.line = line;
    } else if (m.operation != &operation || m.call.mask != mask || !same_place(file, line, m.call.file, m.call.line)) {
        fail(file, line, "lanes of one warp meet in different collectives: %s with mask %08x here, %s with mask %08x at %s:%d",
             operation.name, mask, m.operation->name, m.call.mask, m.call.file, m.call.line);
    }
    m.call.lanes[lane] = &mine;
    m.arrived |= 1u << lane;
    char *const order = &m.order[block.turn][m.generation & 1];
    if (operation.orders_memory) release(order);
    if (m.arrived != mask) {
        wait_in(operation.name, file, line);
    } else {
        operation.perform(m.call);
        m.arrived = 0;
        m.generation++;
        for (unsigned rest = mask & ~(1u << lane); rest; rest &= rest - 1) wake(warp * WARP + (unsigned)__builtin_ctz(rest));
    }
    if (operation.orders_memory) acquire(order);
}

}   // namespace on_cpu
