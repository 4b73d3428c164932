/**
 * The Natural Earth projection (Šavrič, Jenny, Patterson, Petrovič and Hurni: "A Polynomial Equation for the Natural Earth
 * Projection", 2011): the world without its poles, in a frame of {@link WIDTH} by {@link HEIGHT}.
 */

export const WIDTH = 1000;
const NORTH = 84;
const SOUTH = -57;
const SCALE = WIDTH / (2 * Math.PI * 0.8707);
const TOP = upwards(NORTH);
export const HEIGHT = Math.ceil((TOP - upwards(SOUTH)) * SCALE);

/** Where a place is in the frame. What is nearer to a pole than the frame stands at its edge. */
export function project(latitude: number, longitude: number): [x: number, y: number] {
  const within = Math.min(NORTH, Math.max(SOUTH, latitude));
  const [p2, p4] = powers(within);
  const stretch = 0.8707 - 0.131979 * p2 + p4 * (-0.013791 + p4 * (0.003971 * p2 - 0.001529 * p4));
  return [WIDTH / 2 + radians(longitude) * stretch * SCALE, (TOP - upwards(within)) * SCALE];
}

function upwards(latitude: number): number {
  const [p2, p4] = powers(latitude);
  return radians(latitude) * (1.007226 + p2 * (0.015085 + p4 * (-0.044475 + 0.028874 * p2 - 0.005916 * p4)));
}

function powers(latitude: number): [square: number, fourth: number] {
  const square = radians(latitude) ** 2;
  return [square, square ** 2];
}

function radians(degrees: number): number {
  return (degrees * Math.PI) / 180;
}
