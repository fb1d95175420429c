/** In the making. */
export {}
